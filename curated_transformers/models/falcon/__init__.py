"""Falcon (Almazrouei et al. 2023), in its older and its newer decoder architecture."""

from .causal_lm import FalconCausalLM
from .config import FalconConfig
from .decoder import FalconDecoder

__all__ = ["FalconCausalLM", "FalconConfig", "FalconDecoder"]
