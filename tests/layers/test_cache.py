"""Key-value caches as objects; what they do in a model stands in tests/models."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import small_models

from curated_transformers import Tensor
from curated_transformers.layers import CacheProtocol, KeyValueCache
from curated_transformers.models.llama import LlamaCausalLM

KEY = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
VALUE = -KEY


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """What a call returned: a layer over the core's pages."""
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path_factory.mktemp("llama")))
    return model([[1, 2, 3], [4, 5, 6]], store_cache=True).cache[1]


def test_a_cache_holds_the_arrays_that_it_is_made_of():
    cache = KeyValueCache(KEY, VALUE)
    assert isinstance(cache.key, Tensor)
    assert np.shares_memory(cache.key.numpy(), KEY)
    assert np.shares_memory(cache.value.numpy(), VALUE)
    assert [field.name for field in dataclasses.fields(cache)] == ["key", "value"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_are_kept_as_they_are(dtype):
    key, value = Tensor(KEY).to(dtype), Tensor(VALUE).to(dtype)
    cache = KeyValueCache(key=key, value=value)
    assert cache.key is key
    assert cache.value is value


def test_lists_become_tensors():
    assert KeyValueCache(KEY.tolist(), VALUE.tolist()) == KeyValueCache(KEY, VALUE)


def test_keys_and_values_have_the_same_shape():
    with pytest.raises(ValueError, match=r"same shape, have \[2, 3, 4, 5\] and \[2, 3, 3, 5\]"):
        KeyValueCache(KEY, VALUE[:, :, 1:])


def test_caches_are_equal_when_their_values_are(stored):
    assert KeyValueCache(KEY, VALUE) == KeyValueCache(KEY.copy(), VALUE.copy())
    assert KeyValueCache(KEY, VALUE) != KeyValueCache(VALUE, KEY)
    assert KeyValueCache(KEY, VALUE) != KeyValueCache(KEY.astype(np.float16), VALUE)
    assert KeyValueCache(KEY, VALUE) != "cache"
    assert stored == KeyValueCache(stored.key, stored.value)
    assert stored != KeyValueCache(stored.value, stored.key)


def test_caches_do_not_change(stored):
    for cache in (KeyValueCache(KEY, VALUE), stored):
        with pytest.raises(dataclasses.FrozenInstanceError):
            cache.key = VALUE
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = cache.nonsense


@pytest.mark.parametrize("duplicate", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
def test_copies_hold_the_same_values(stored, duplicate):
    for cache in (
        KeyValueCache(KEY, VALUE),
        KeyValueCache(Tensor(KEY).to("bfloat16"), Tensor(VALUE).to("bfloat16")),
        stored,
    ):
        again = duplicate(cache)
        assert again == cache
        assert again.key.dtype == cache.key.dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [[True, False], [False, True], [True, True], [False, False]])
def test_filters_keep_sequences(rows, dtype):
    cache = KeyValueCache(Tensor(KEY).to(dtype), Tensor(VALUE).to(dtype))
    for mask in (rows, np.array(rows), Tensor(rows)):
        kept = cache.filter_batch_items(mask)
        assert kept.key.dtype == dtype
        np.testing.assert_array_equal(kept.key.numpy(), KEY[np.array(rows)])
        np.testing.assert_array_equal(kept.value.numpy(), VALUE[np.array(rows)])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 1), bool), "Cache mask .*must be a 1D tensor, has 2 dimensions"),
        ([True], r"Cache mask .*size \(1\) must match cache batch size \(2\)"),
        ([1, 0], "Cache mask .*dtype must be bool, was: int64"),
    ],
)
def test_filters_are_checked(stored, mask, message):
    for cache in (KeyValueCache(KEY, VALUE), stored):
        with pytest.raises(ValueError, match=message):
            cache.filter_batch_items(mask)


def test_caches_are_what_the_protocol_says(stored):
    assert isinstance(stored, CacheProtocol)
    assert not isinstance(KEY, CacheProtocol)


def test_caches_show_what_they_hold(stored):
    assert repr(stored) == "KeyValueCache(layer=1, batch=2, keys=3)"
    assert repr(KeyValueCache(KEY, VALUE)) == "KeyValueCache(shape=[2, 3, 4, 5], dtype=float32)"
