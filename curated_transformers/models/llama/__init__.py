"""Llama (Touvron et al. 2023) and what follows its architecture."""

from .causal_lm import LlamaCausalLM
from .config import LlamaConfig
from .decoder import LlamaDecoder

__all__ = ["LlamaCausalLM", "LlamaConfig", "LlamaDecoder"]
