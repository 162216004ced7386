"""GPT-NeoX with its output head."""

from ..transformer import TransformerCausalLM
from .config import GPTNeoXConfig
from .decoder import GPTNeoX


class GPTNeoXCausalLM(GPTNeoX, TransformerCausalLM[GPTNeoXConfig]):
    """GPT-NeoX as a causal language model."""
