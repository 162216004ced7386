"""GPT-NeoX (Black et al. 2022), the architecture of Pythia and Dolly."""

from .causal_lm import GPTNeoXCausalLM
from .config import GPTNeoXConfig
from .decoder import GPTNeoXDecoder

__all__ = ["GPTNeoXCausalLM", "GPTNeoXConfig", "GPTNeoXDecoder"]
