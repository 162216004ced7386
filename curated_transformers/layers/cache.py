"""The key-value cache as users hold it: one object per layer, over the core's pages or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from .._core import Cache, Model, Tensor
from .mask import batch_filter

CacheT = TypeVar("CacheT", covariant=True)


@runtime_checkable
class CacheProtocol(Protocol[CacheT]):
    """What a model keeps of the pieces so far."""

    def filter_batch_items(self, mask: Any) -> CacheT:
        """The sequences where the one-dimensional boolean ``mask`` is true."""


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KeyValueCache:
    """Keys (rotated already) and values of one layer, ``[batch, kv_heads, keys, head_width]``.

    Those that a model returns read ``key`` and ``value`` from the core's pages whenever they are
    asked for, on the model's device, with zeros at masked places; passing the list of all layers
    back to the model costs nothing. Those made by ``KeyValueCache(key, value)`` hold arrays of
    floats, shared where that is possible, and are copied into pages by the call that gets them;
    what is masked then is what that call's attention mask says. A cache does not change; equal ones
    hold the same values.

    Keys and values are of the key/value heads: never repeated for the query heads that share them.
    """

    key: Tensor
    value: Tensor

    def __init__(self, key: Any, value: Any) -> None:
        key = key if isinstance(key, Tensor) else Tensor(key)
        value = value if isinstance(value, Tensor) else Tensor(value)
        if key.shape != value.shape:
            raise ValueError(
                "key and value must have the same shape, have "
                f"{list(key.shape)} and {list(value.shape)}"
            )
        self.__dict__.update(key=key, value=value, pages=None)

    if TYPE_CHECKING:
        #: What a call stored, and the layer's number there; None where there are arrays.
        pages: Cache | None
        layer: int
        #: Stands for the call that stored the cache and the filters since then: equal for layers
        #: that belong together.
        origin: tuple[object, ...]
    else:

        def __getattr__(self, name: str) -> Any:
            pages = self.__dict__.get("pages")
            if pages is None or name not in ("key", "value"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(pages, name)(self.layer)

    def filter_batch_items(self, mask: Any) -> KeyValueCache:
        """The sequences where the one-dimensional boolean ``mask`` is true."""
        if self.pages is None:
            rows = batch_filter(mask, self.key.shape[0], "cache", "Cache mask ")
            return KeyValueCache(self.key[rows], self.value[rows])
        rows = batch_filter(mask, self.pages.n_sequences, "cache", "Cache mask ")
        selected = self.pages.select(np.flatnonzero(rows))
        return _over_pages(selected, self.layer, (*self.origin, rows.tobytes()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyValueCache):
            return NotImplemented
        return _same(self.key, other.key) and _same(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyValueCache, (self.key, self.value)

    def __repr__(self) -> str:
        if self.pages is None:
            return f"KeyValueCache(shape={list(self.key.shape)}, dtype={self.key.dtype})"
        batch, keys = self.pages.n_sequences, self.pages.n_columns
        return f"KeyValueCache(layer={self.layer}, batch={batch}, keys={keys})"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and np.array_equal(one.numpy(), other.numpy())


def _over_pages(pages: Cache, layer: int, origin: tuple[object, ...]) -> KeyValueCache:
    cache = KeyValueCache.__new__(KeyValueCache)
    cache.__dict__.update(pages=pages, layer=layer, origin=origin)
    return cache


def caches_of(pages: Cache) -> list[KeyValueCache]:
    """One object for each layer."""
    origin = (object(),)
    return [_over_pages(pages, layer, origin) for layer in range(pages.n_layers)]


def pages_of(
    caches: Sequence[KeyValueCache] | None, core_model: Model, attention_mask: Any
) -> Cache | None:
    """The pages behind a list that ``caches_of`` or an equal filter of each of its members made.

    A list in which arrays occur becomes pages of ``core_model`` as a whole; where a plain
    ``attention_mask`` of cached and new pieces is false, they hold no position. Layers of different
    calls, in another order or filtered differently, are refused with ``ValueError``: who wants just
    that says so by making arrays of them.
    """
    if caches is None:
        return None
    if not caches or not all(isinstance(cache, KeyValueCache) for cache in caches):
        raise TypeError("cache must be a list with a KeyValueCache for each layer")
    if all(cache.pages is not None for cache in caches):
        return _common_pages(caches)
    keys = [cache.key for cache in caches]
    values = [cache.value for cache in caches]
    return Cache(core_model, keys, values, _cached_columns(attention_mask, keys[0]))


def _common_pages(caches: Sequence[KeyValueCache]) -> Cache | None:
    first = caches[0].pages
    assert first is not None
    if first.n_layers != len(caches) or any(c.layer != i for i, c in enumerate(caches)):
        raise ValueError(
            f"cache must have one entry for each of the {first.n_layers} layers, in order"
        )
    if any(cache.origin != caches[0].origin for cache in caches):
        raise ValueError(
            "the layers' caches are of different calls, or filtered differently; "
            "KeyValueCache(cache.key, cache.value) of each joins them all the same"
        )
    return first


def _cached_columns(attention_mask: Any, key: Tensor) -> npt.NDArray[np.bool_] | None:
    """The beginning of a mask by key, or None where there is no such mask or it does not fit, which
    the call will say."""
    mask = getattr(attention_mask, "bool_mask", attention_mask)
    if mask is None or key.ndim != 4:
        return None
    mask = mask if isinstance(mask, Tensor) else Tensor(mask)
    by_key = mask.ndim == 2 or (mask.ndim == 4 and mask.shape[1] == mask.shape[2] == 1)
    batch, _, n_cached, _ = key.shape
    if mask.dtype != "bool" or not by_key or mask.shape[0] not in (1, batch):
        return None
    if mask.shape[-1] < n_cached:
        return None
    columns = mask.numpy().reshape(mask.shape[0], mask.shape[-1])[:, :n_cached]
    return np.broadcast_to(columns, (batch, n_cached))
