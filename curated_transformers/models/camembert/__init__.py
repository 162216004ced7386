"""CamemBERT (Martin et al. 2020)."""

from .encoder import CamemBERTEncoder

__all__ = ["CamemBERTEncoder"]
