"""MPT (MosaicML 2023)."""

from .causal_lm import MPTCausalLM
from .config import MPTConfig
from .decoder import MPTDecoder

__all__ = ["MPTCausalLM", "MPTConfig", "MPTDecoder"]
