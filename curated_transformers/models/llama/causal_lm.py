"""Llama with its output head."""

from ..transformer import TransformerCausalLM
from .config import LlamaConfig
from .decoder import Llama


class LlamaCausalLM(Llama, TransformerCausalLM[LlamaConfig]):
    """Llama as a causal language model."""
