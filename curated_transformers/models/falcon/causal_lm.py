"""Falcon with its output head."""

from ..transformer import TransformerCausalLM
from .config import FalconConfig
from .decoder import Falcon


class FalconCausalLM(Falcon, TransformerCausalLM[FalconConfig]):
    """Falcon as a causal language model."""
