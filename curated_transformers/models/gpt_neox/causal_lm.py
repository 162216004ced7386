"""GPT-NeoX with its output head."""

from ..module import CausalLMModule
from .decoder import GPTNeoX


class GPTNeoXCausalLM(GPTNeoX, CausalLMModule):
    """GPT-NeoX as a causal language model."""
