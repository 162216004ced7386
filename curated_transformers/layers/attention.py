"""Attention masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import Device, Tensor


@dataclass
class AttentionMask:
    """Which keys may be attended to: ``True`` = attend.

    ``bool_mask`` is ``[batch, keys]`` (stored as ``[batch, 1, 1, keys]``) or
    ``[batch, heads, queries, keys]``. With a cache the keys are those cached and the new ones.
    Raises ``ValueError`` for another dtype or number of dimensions.
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
        rows = batch_filter(mask, self.shape[0], "attention mask", "")
        return AttentionMask(self.bool_mask.numpy()[rows])

    def merge_mask(self, other: AttentionMask) -> AttentionMask:
        """What both masks allow."""
        return AttentionMask(self.bool_mask.numpy() & other.bool_mask.numpy())


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
