"""Llama with its output head."""

from ..module import CausalLMModule
from .decoder import Llama


class LlamaCausalLM(Llama, CausalLMModule):
    """Llama as a causal language model."""
