"""BERT (Devlin et al. 2018)."""

from .config import BERTConfig
from .encoder import BERTEncoder

__all__ = ["BERTConfig", "BERTEncoder"]
