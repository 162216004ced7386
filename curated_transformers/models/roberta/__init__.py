"""RoBERTa (Liu et al. 2019)."""

from .config import RoBERTaConfig
from .encoder import RoBERTaEncoder

__all__ = ["RoBERTaConfig", "RoBERTaEncoder"]
