"""How the heads of an attention layer lie in its projections."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from .._core import Tensor


class QkvMode(enum.Enum):
    """How queries, keys and values are projected."""

    #: Three projections: ``query``, ``key`` and ``value``.
    SEPARATE = 0
    #: One projection ``input``, split into heads first, then each head into query, key and value.
    MERGED_SPLIT_BEFORE = 1
    #: One projection ``input``, split by the heads' :class:`QkvSplit`.
    MERGED_SPLIT_AFTER = 2


class QkvSplit(ABC):
    """Takes a merged projection apart."""

    @abstractmethod
    def split(
        self, *, projection: Any, head_width: int, n_query_heads: int, n_key_value_heads: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``[batch, n_query_heads, seq, head_width]``, keys and values ``[batch,
        n_key_value_heads, seq, head_width]`` of ``projection`` ``[batch, seq, (n_query_heads + 2
        n_key_value_heads) head_width]``. They share its memory where NumPy's views can, which
        bfloat16 has none of. ``ValueError`` for a projection of another shape."""


@dataclass(frozen=True)
class QkvSplitGroupedByHead(QkvSplit):
    """All query heads, then all key heads, then all value heads."""

    def split(
        self, *, projection: Any, head_width: int, n_query_heads: int, n_key_value_heads: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        n_heads = n_query_heads + 2 * n_key_value_heads
        tensor = _merged(projection, n_heads * head_width)
        batch, seq, _ = tensor.shape
        heads = tensor.numpy().reshape(batch, seq, n_heads, head_width).transpose(0, 2, 1, 3)
        values = n_query_heads + n_key_value_heads
        parts = heads[:, :n_query_heads], heads[:, n_query_heads:values], heads[:, values:]
        query, key, value = (Tensor(part, dtype=tensor.dtype) for part in parts)
        return query, key, value


@dataclass(frozen=True)
class QkvSplitGroupedByKVHeads(QkvSplit):
    """A group for each key head: its query heads, the key head, the value head."""

    def split(
        self, *, projection: Any, head_width: int, n_query_heads: int, n_key_value_heads: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        _check_multiple(n_query_heads, n_key_value_heads)
        in_group = n_query_heads // n_key_value_heads
        tensor = _merged(projection, n_key_value_heads * (in_group + 2) * head_width)
        batch, seq, _ = tensor.shape
        groups = tensor.numpy().reshape(batch, seq, n_key_value_heads, in_group + 2, head_width)
        groups = groups.transpose(0, 2, 3, 1, 4)
        queries = groups[:, :, :in_group].reshape(batch, n_query_heads, seq, head_width)
        parts = queries, groups[:, :, in_group], groups[:, :, in_group + 1]
        query, key, value = (Tensor(part, dtype=tensor.dtype) for part in parts)
        return query, key, value


@dataclass(frozen=True, kw_only=True)
class AttentionHeads:
    """How many heads an attention layer has and how a merged projection is taken apart.

    Raises ``ValueError`` unless each key/value head serves an equal number of query heads.
    """

    n_query_heads: int
    n_key_value_heads: int
    qkv_split: QkvSplit

    def __post_init__(self) -> None:
        _check_multiple(self.n_query_heads, self.n_key_value_heads)

    @classmethod
    def uniform(cls, n_attention_heads: int, qkv_split: QkvSplit) -> AttentionHeads:
        """A key/value head for each query head."""
        return cls.key_value_broadcast(
            n_query_heads=n_attention_heads,
            n_key_value_heads=n_attention_heads,
            qkv_split=qkv_split,
        )

    @classmethod
    def multi_query(cls, n_query_heads: int, qkv_split: QkvSplit) -> AttentionHeads:
        """One key/value head for all query heads."""
        return cls.key_value_broadcast(
            n_query_heads=n_query_heads, n_key_value_heads=1, qkv_split=qkv_split
        )

    @classmethod
    def key_value_broadcast(
        cls, *, n_query_heads: int, n_key_value_heads: int, qkv_split: QkvSplit
    ) -> AttentionHeads:
        """Each key/value head serves ``n_query_heads / n_key_value_heads`` query heads."""
        return cls(
            n_query_heads=n_query_heads,
            n_key_value_heads=n_key_value_heads,
            qkv_split=qkv_split,
        )


def split_heads(input: Any, n_heads: int) -> Tensor:
    """``[batch, seq, width]`` -> ``[batch, n_heads, seq, width / n_heads]``, as NumPy's reshape and
    transpose do: a view of ``input``, but for bfloat16. ``ValueError`` when the width is no
    multiple."""
    tensor = input if isinstance(input, Tensor) else Tensor(input)
    if tensor.ndim != 3:
        raise ValueError(f"Expected the shape [batch, seq, width], was: {list(tensor.shape)}")
    batch, seq, width = tensor.shape
    if n_heads < 1 or width % n_heads != 0:
        raise ValueError(f"Width ({width}) must be a multiple of the number of heads ({n_heads})")
    heads = tensor.numpy().reshape(batch, seq, n_heads, width // n_heads)
    return Tensor(heads.transpose(0, 2, 1, 3), dtype=tensor.dtype)


def combine_heads(input: Any) -> Tensor:
    """``[batch, heads, seq, head_width]`` -> ``[batch, seq, heads head_width]``: the inverse of
    :func:`split_heads`, a copy unless the memory lies so already."""
    tensor = input if isinstance(input, Tensor) else Tensor(input)
    if tensor.ndim != 4:
        raise ValueError(
            f"Expected the shape [batch, heads, seq, head_width], was: {list(tensor.shape)}"
        )
    batch, heads, seq, head_width = tensor.shape
    joined = tensor.numpy().transpose(0, 2, 1, 3).reshape(batch, seq, heads * head_width)
    return Tensor(joined, dtype=tensor.dtype)


def _merged(projection: Any, width: int) -> Tensor:
    tensor = projection if isinstance(projection, Tensor) else Tensor(projection)
    if tensor.ndim != 3 or tensor.shape[2] != width:
        raise ValueError(
            f"The projection must have the shape [batch, seq, {width}], was: {list(tensor.shape)}"
        )
    return tensor


def _check_multiple(n_query_heads: int, n_key_value_heads: int) -> None:
    if n_query_heads < 1 or n_key_value_heads < 1:
        raise ValueError(
            f"There must be at least one head of each kind, were: {n_query_heads} query and "
            f"{n_key_value_heads} key/value heads"
        )
    if n_query_heads % n_key_value_heads != 0:
        raise ValueError(
            f"Number of query heads ({n_query_heads}) must be a multiple of "
            f"key/value heads ({n_key_value_heads})"
        )
