"""XLM-RoBERTa (Conneau et al. 2020)."""

from .encoder import XLMREncoder

__all__ = ["XLMREncoder"]
