"""ALBERT (Lan et al. 2019)."""

from .config import ALBERTConfig, ALBERTLayerConfig
from .encoder import ALBERTEncoder

__all__ = ["ALBERTConfig", "ALBERTEncoder", "ALBERTLayerConfig"]
