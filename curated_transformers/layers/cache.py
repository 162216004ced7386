"""The key-value cache as users hold it: one object per layer over the core's pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import Cache, Tensor
from .attention import batch_filter


class KeyValueCache:
    """Keys and values of one layer, ``[batch, kv_heads, keys, head_width]``, zeros at masked
    places.

    They are gathered from the core's pages when they are read; passing the caches of all layers
    back to the model costs nothing.
    """

    def __init__(self, pages: Cache, layer: int, origin: tuple[object, ...] = ()) -> None:
        self.pages = pages
        self.layer = layer
        # Stands for the call that stored the cache and the filters since then: equal for layers
        # that belong together.
        self.origin = origin

    @property
    def key(self) -> Tensor:
        """The keys, rotated already."""
        return self.pages.key(self.layer)

    @property
    def value(self) -> Tensor:
        """The values."""
        return self.pages.value(self.layer)

    def filter_batch_items(self, mask: Any) -> KeyValueCache:
        """The sequences where the one-dimensional boolean ``mask`` is true."""
        rows = batch_filter(mask, self.pages.n_sequences, "cache", "Cache mask ")
        selected = self.pages.select(np.flatnonzero(rows))
        return KeyValueCache(selected, self.layer, (*self.origin, rows.tobytes()))

    def __repr__(self) -> str:
        batch, keys = self.pages.n_sequences, self.pages.n_columns
        return f"KeyValueCache(layer={self.layer}, batch={batch}, keys={keys})"


def caches_of(pages: Cache) -> list[KeyValueCache]:
    """One object for each layer."""
    origin = (object(),)
    return [KeyValueCache(pages, layer, origin) for layer in range(pages.n_layers)]


def pages_of(caches: list[KeyValueCache] | None) -> Cache | None:
    """The pages behind a list that ``caches_of`` or an equal filter of each of its members made."""
    if caches is None:
        return None
    if not caches or not all(isinstance(cache, KeyValueCache) for cache in caches):
        raise TypeError("cache must be the list of KeyValueCache that a model returned")
    first = caches[0].pages
    if first.n_layers != len(caches) or any(c.layer != i for i, c in enumerate(caches)):
        raise ValueError(
            f"cache must have one entry for each of the {first.n_layers} layers, in order"
        )
    if any(cache.origin != caches[0].origin for cache in caches):
        raise ValueError("the layers' caches are of different calls, or filtered differently")
    return first
