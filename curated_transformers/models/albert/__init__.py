"""ALBERT (Lan et al. 2019)."""

from typing import Any

from ...layers.left_out import refuse
from .config import ALBERTConfig, ALBERTLayerConfig
from .encoder import ALBERTEncoder

__all__ = ["ALBERTConfig", "ALBERTEncoder", "ALBERTLayerConfig"]


def __getattr__(name: str) -> Any:
    return refuse(__name__, name)
