"""Attention masks: which keys a query may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import Device, Tensor
from ..dtype import dtype_name

#: The lowest finite values of the element types that logits may have.
LOWEST_FINITE = {
    "float32": float(np.finfo(np.float32).min),
    "float16": float(np.finfo(np.float16).min),
    "bfloat16": -(2 - 2.0**-7) * 2.0**127,
}


@dataclass(eq=False)
class AttentionMask:
    """Which keys may be attended to: ``True`` = attend.

    ``bool_mask`` is ``[batch, keys]`` (stored as ``[batch, 1, 1, keys]``) or
    ``[batch, heads, queries, keys]``: a tensor, array, ``torch.Tensor`` or nested list of booleans,
    shared where that is possible. With a cache the keys are those cached and the new ones. Two
    masks are equal when they say the same. Raises ``ValueError`` for another dtype or number of
    dimensions.
    """

    bool_mask: Tensor

    def __init__(self, bool_mask: Any) -> None:
        mask = bool_mask if isinstance(bool_mask, Tensor) else Tensor(bool_mask)
        if mask.dtype != "bool":
            raise ValueError(f"Expected the attention mask to be of dtype bool, was: {mask.dtype}")
        if mask.ndim == 2:
            batch, keys = mask.shape
            mask = mask.contiguous().reshape(batch, 1, 1, keys)
        elif mask.ndim != 4:
            raise ValueError(
                "The attention mask must be a tensor of shape [batch, keys] or "
                f"[batch, heads, queries, keys], has {mask.ndim} dimensions"
            )
        self.bool_mask = mask

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AttentionMask):
            return NotImplemented
        return np.array_equal(self.bool_mask.numpy(), other.bool_mask.numpy())

    __hash__ = None  # type: ignore[assignment]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the four-dimensional mask."""
        return self.bool_mask.shape

    @property
    def device(self) -> Device:
        """Where the mask lives."""
        return self.bool_mask.device

    def dim(self) -> int:
        """Always 4."""
        return 4

    def apply_logit_mask(self, input: Any) -> Tensor:
        """``input`` (floats, of a shape that the mask broadcasts with) where the mask is true, else
        the lowest finite value of its dtype. ``ValueError`` when they are no floats."""
        logits = input if isinstance(input, Tensor) else Tensor(input)
        values = logits.numpy()
        lowest = np.full((), _lowest(logits.dtype), values.dtype)
        return Tensor(np.where(self.bool_mask.numpy(), values, lowest), dtype=logits.dtype)

    def logit_mask(self, dtype: Any) -> Tensor:
        """What to add to logits: 0 where the mask is true, else the lowest finite value of
        ``dtype``. ``ValueError`` for types other than floats."""
        name = dtype_name(dtype)
        lowest = np.float32(_lowest(name))
        return Tensor(np.where(self.bool_mask.numpy(), np.float32(0), lowest), dtype=name)

    def extend_length(self, count: int, fill_value: bool) -> AttentionMask:
        """A mask with ``count`` more keys at the end, all ``fill_value``."""
        if count <= 0:
            raise ValueError(f"The mask must be extended by at least one key, was: {count}")
        mask = self.bool_mask.numpy()
        return AttentionMask(
            np.concatenate([mask, np.full((*mask.shape[:3], count), fill_value)], axis=-1)
        )

    def filter_batch_items(self, mask: Any) -> AttentionMask:
        """The sequences where the one-dimensional boolean ``mask`` is true."""
        rows = batch_filter(mask, self.shape[0], "attention mask", "Attention mask ")
        return AttentionMask(self.bool_mask.numpy()[rows])

    def merge_mask(self, other: AttentionMask) -> AttentionMask:
        """What both masks allow; their shapes broadcast."""
        return AttentionMask(self.bool_mask.numpy() & other.bool_mask.numpy())


def create_causal_mask(query: Any, key: Any) -> AttentionMask:
    """``[1, 1, queries, keys]``: the queries are the last of the keys' pieces, and each sees the
    keys up to its own. ``query`` and ``key`` are ``[batch, heads, pieces, head_width]``; only their
    numbers of pieces count."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    if n_queries > n_keys:
        raise ValueError(f"There must be a key for each query, were: {n_keys} and {n_queries}")
    causal = np.tri(n_queries, n_keys, n_keys - n_queries, dtype=np.bool_)
    return AttentionMask(causal[None, None])


def batch_filter(mask: Any, batch: int, what: str, prefix: str) -> np.ndarray[Any, Any]:
    """``mask`` as a boolean array of length ``batch``, or ``ValueError``."""
    rows = np.asarray(mask)
    if rows.ndim != 1:
        raise ValueError(f"{prefix}filter must be a 1D tensor, has {rows.ndim} dimensions")
    if rows.shape[0] != batch:
        raise ValueError(
            f"{prefix}filter size ({rows.shape[0]}) must match {what} batch size ({batch})"
        )
    if rows.dtype != np.bool_:
        raise ValueError(f"{prefix}filter dtype must be bool, was: {rows.dtype}")
    return rows


def _lowest(dtype: str) -> float:
    if dtype not in LOWEST_FINITE:
        raise ValueError(f"Logits must be one of {', '.join(LOWEST_FINITE)}, were: {dtype}")
    return LOWEST_FINITE[dtype]
