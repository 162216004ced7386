"""What appears in model signatures and outputs: activations, masks, heads, caches."""

from typing import Any

from .activations import Activation, GELUFast, GELUNew
from .attention import (
    AttentionHeads,
    AttentionMask,
    QkvMode,
    QkvSplit,
    enable_torch_sdp,
)
from .cache import CacheProtocol, KeyValueCache
from .left_out import refuse

__all__ = [
    "Activation",
    "AttentionHeads",
    "AttentionMask",
    "CacheProtocol",
    "GELUFast",
    "GELUNew",
    "KeyValueCache",
    "QkvMode",
    "QkvSplit",
    "enable_torch_sdp",
]


def __getattr__(name: str) -> Any:
    return refuse(__name__, name)
