"""What belongs to attention: masks, heads, and the switch of fused attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .heads import (
    AttentionHeads,
    QkvMode,
    QkvSplit,
    QkvSplitGroupedByHead,
    QkvSplitGroupedByKVHeads,
    combine_heads,
    split_heads,
)
from .left_out import refuse
from .mask import AttentionMask, create_causal_mask

__all__ = [
    "AttentionHeads",
    "AttentionMask",
    "QkvMode",
    "QkvSplit",
    "QkvSplitGroupedByHead",
    "QkvSplitGroupedByKVHeads",
    "combine_heads",
    "create_causal_mask",
    "enable_torch_sdp",
    "split_heads",
]

_TORCH_SDP: ContextVar[bool] = ContextVar("torch_sdp", default=False)


@contextmanager
def enable_torch_sdp(use_torch_sdp: bool = True) -> Iterator[None]:
    """Asks for fused attention, or with ``False`` against it, until the block ends.

    The core has one attention, which is fused always: results and speed are the same in both
    states, with a cache too. Blocks nest, and each thread or task has its own state.
    """
    token = _TORCH_SDP.set(use_torch_sdp)
    try:
        yield
    finally:
        _TORCH_SDP.reset(token)


def __getattr__(name: str) -> Any:
    return refuse(__name__, name)
