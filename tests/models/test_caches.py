"""Key-value caches: pieces in several calls are pieces in one call."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from curated_transformers.layers import AttentionMask
from curated_transformers.models.llama import LlamaCausalLM, LlamaDecoder

# f32 sums in another order differ by a few roundings of 6e-8 at values of about 1 to 5.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
PAGE = 64  # positions in a page of the cache, csrc/model/kv_cache.h
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LlamaCausalLM.from_path(small_models.llama(tmp_path_factory.mktemp("llama")))


def logits(output):
    return np.asarray(output.logits)


def ids_of(batch, length):
    return RNG.integers(0, 50, (batch, length))


@pytest.mark.parametrize(
    "splits",
    [
        [1, 1, 1, 1],
        [3, 4],
        [PAGE - 1, 1, 1],
        [PAGE, 1],
        [PAGE + 1, PAGE - 1, PAGE],
        [1, 2 * PAGE, 3],
    ],
)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_pieces_in_several_calls_are_pieces_in_one(tmp_path, splits, kv_heads):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path, kv_heads=kv_heads))
    ids = ids_of(2, sum(splits))
    whole = model(ids, store_cache=True)
    cache, start = None, 0
    for n in splits:
        part = model(ids[:, start : start + n], cache=cache, store_cache=True)
        np.testing.assert_allclose(logits(part), logits(whole)[:, start : start + n], **CLOSE)
        cache, start = part.cache, start + n
    for mine, right in zip(cache, whole.cache, strict=True):
        assert mine.key.shape == (2, kv_heads, sum(splits), 8)
        np.testing.assert_allclose(np.asarray(mine.key), np.asarray(right.key), **CLOSE)
        np.testing.assert_allclose(np.asarray(mine.value), np.asarray(right.value), **CLOSE)


@pytest.mark.parametrize("left", [True, False])
def test_padding_and_cache_together(model, left):
    """Ragged prompts, then two more pieces each."""
    lengths, n_new = [5, 2, 9], 2
    rows = [ids_of(1, n + n_new)[0] for n in lengths]
    ids = np.zeros((3, 9), dtype=int)
    mask = np.zeros((3, 9), dtype=bool)
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        place = slice(9 - n, 9) if left else slice(0, n)
        ids[i, place], mask[i, place] = row[:n], True
    positions = mask.cumsum(axis=1) - 1
    first = model(ids, mask, positions=positions, store_cache=True)
    new = np.stack([row[-n_new:] for row in rows])
    rest = model(
        new,
        AttentionMask(mask).extend_length(n_new, True),
        cache=first.cache,
        positions=np.array(lengths)[:, None] + np.arange(n_new),
    )
    for i, row in enumerate(rows):
        alone = logits(model(row[None]))[0]
        np.testing.assert_allclose(logits(first)[i, mask[i]], alone[:-n_new], **CLOSE)
        np.testing.assert_allclose(logits(rest)[i], alone[-n_new:], **CLOSE)
    for values in (first.cache[0].key, first.cache[1].value):
        masked = np.asarray(values).transpose(0, 2, 1, 3)[~mask]
        assert not masked.any()


def test_new_pieces_may_be_padding(model):
    """One row goes on while the other has ended."""
    ids = ids_of(2, 6)
    first = model(ids[:, :4], store_cache=True)
    mask = np.ones((2, 6), dtype=bool)
    mask[1, 4:] = False
    second = model(ids[:, 4:], mask, cache=first.cache, store_cache=True)
    np.testing.assert_allclose(logits(second)[0], logits(model(ids[:1]))[0, 4:], **CLOSE)
    assert not logits(second)[1].any()
    third = model(
        [[1], [2]], np.c_[mask, [[True], [True]]], cache=second.cache, positions=[[6], [4]]
    )
    expected = logits(model(np.r_[ids[1, :4], 2][None]))[0, -1]
    np.testing.assert_allclose(logits(third)[1, 0], expected, **CLOSE)


@pytest.mark.parametrize("length", [3, PAGE - 1, PAGE, PAGE + 3])
def test_one_cache_serves_two_continuations(model, length):
    """Continuing appends to the snapshot's page in place or copies it; neither may show."""
    prompt, one, two = ids_of(1, length), ids_of(1, 5), ids_of(1, 4)
    first = model(prompt, store_cache=True)
    before = np.asarray(first.cache[1].key).copy()
    branches = [model(more, cache=first.cache, store_cache=True) for more in (one, two)]
    for branch, more in zip(branches, (one, two), strict=True):
        expected = logits(model(np.c_[prompt, more]))[:, length:]
        np.testing.assert_allclose(logits(branch), expected, **CLOSE)
    np.testing.assert_array_equal(np.asarray(first.cache[1].key), before)
    # Both branches go on, in the other order.
    for branch, more in zip(branches[::-1], (two, one), strict=True):
        again = model([[9]], cache=branch.cache)
        expected = logits(model(np.c_[prompt, more, [[9]]]))[:, -1:]
        np.testing.assert_allclose(logits(again), expected, **CLOSE)


def test_a_branch_goes_on_after_the_snapshot_is_gone(model):
    prompt = ids_of(1, 10)
    cache = model(prompt, store_cache=True).cache
    cache = model([[3]], cache=cache, store_cache=True).cache
    expected = logits(model(np.c_[prompt, [[3, 4]]]))[:, -1:]
    np.testing.assert_allclose(logits(model([[4]], cache=cache)), expected, **CLOSE)


@pytest.mark.parametrize("keep", [[True, False, True], [False, False, True], [True] * 3])
def test_filtered_caches_go_on_with_the_remaining_sequences(model, keep):
    ids, keep = ids_of(3, 8), np.array(keep)
    first = model(ids[:, :6], store_cache=True)
    kept = [cache.filter_batch_items(keep) for cache in first.cache]
    assert kept[0].key.shape == (keep.sum(), 2, 6, 8)
    rest = model(ids[keep, 6:], cache=kept)
    np.testing.assert_allclose(logits(rest), logits(model(ids))[keep, 6:], **CLOSE)
    np.testing.assert_array_equal(np.asarray(kept[1].value), np.asarray(first.cache[1].value)[keep])


def test_a_filter_may_keep_nothing(model):
    cache = model(ids_of(2, 3), store_cache=True).cache
    empty = [one.filter_batch_items([False, False]) for one in cache]
    with pytest.raises(ValueError, match="no sequences"):
        _ = empty[0].key
    with pytest.raises(ValueError, match="the cache holds 0 sequences"):
        model([[1]], cache=empty)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 1), bool), "Cache mask filter must be a 1D tensor, has 2 dimensions"),
        ([True], r"Cache mask filter size \(1\) must match cache batch size \(2\)"),
        ([1, 0], "Cache mask filter dtype must be bool, was: int64"),
    ],
)
def test_filters_are_checked(model, mask, message):
    (cache, _) = model(ids_of(2, 3), store_cache=True).cache
    with pytest.raises(ValueError, match=message):
        cache.filter_batch_items(mask)


@pytest.mark.parametrize("other", [{"kv_heads": 4}, {"seed": 1}, {"layers": 3}])
def test_the_cache_of_another_model_is_refused(model, tmp_path, other):
    stranger = LlamaCausalLM.from_path(small_models.llama(tmp_path, **other))
    cache = stranger([[1, 2]], store_cache=True).cache
    with pytest.raises(ValueError, match="another model"):
        model([[3]], cache=cache)
    with pytest.raises(ValueError, match="another model"):
        model([[3]], cache=cache, store_cache=True)


def test_the_cache_of_another_batch_is_refused(model):
    cache = model(ids_of(2, 3), store_cache=True).cache
    with pytest.raises(ValueError, match="the cache holds 2 sequences, the piece ids 3"):
        model([[1], [2], [3]], cache=cache)


def test_the_layers_of_a_cache_belong_together(model):
    one, two = (model(ids_of(2, 3), store_cache=True).cache for _ in range(2))
    for wrong in (one[::-1], one[:1], one + one, [one[0], one[0]]):
        with pytest.raises(ValueError, match="one entry for each of the 2 layers, in order"):
            model([[1], [1]], cache=wrong)
    with pytest.raises(ValueError, match="different calls"):
        model([[1], [1]], cache=[one[0], two[1]])
    swapped = [one[0].filter_batch_items([True, False]), one[1].filter_batch_items([False, True])]
    with pytest.raises(ValueError, match="filtered differently"):
        model([[1]], cache=swapped)
    for wrong in ([], "cache", [None, None], one[0]):
        with pytest.raises(TypeError):
            model([[1], [1]], cache=wrong)


@pytest.mark.parametrize("store", [True, False])
def test_a_mask_that_contradicts_the_cache_is_refused(model, store):
    mask = np.array([[False, True, True], [True, True, True]])
    cache = model(ids_of(2, 3), mask, store_cache=True).cache
    new = np.ones((2, 4), dtype=bool)
    with pytest.raises(ValueError, match=r"true at cached column \[0, 0\].*computed with false"):
        model([[1], [1]], new, cache=cache, store_cache=store)
    new[:, :3] = mask
    new[1, 2] = False
    with pytest.raises(ValueError, match=r"false at cached column \[1, 2\].*computed with true"):
        model([[1], [1]], new, cache=cache, store_cache=store)


def test_a_padded_cache_needs_a_mask(model):
    cache = model(ids_of(1, 3), np.array([[False, True, True]]), store_cache=True).cache
    with pytest.raises(ValueError, match="the cache holds padding"):
        model([[1]], cache=cache)


def test_the_mask_has_to_cover_cached_and_new_pieces(model):
    cache = model(ids_of(2, 3), store_cache=True).cache
    for length in (1, 3, 5):
        with pytest.raises(ValueError, match=r"4 pieces \(3 cached and 1 new\)"):
            model([[1], [1]], np.ones((2, length), dtype=bool), cache=cache)


def test_a_mask_by_query_with_a_cache(model):
    """All true is no mask; a blocked key is a piece that was never there."""
    ids = ids_of(1, 6)
    cache = model(ids[:, :4], store_cache=True).cache
    every = np.ones((1, 1, 2, 6), dtype=bool)
    expected = logits(model(ids))[:, 4:]
    np.testing.assert_allclose(logits(model(ids[:, 4:], every, cache=cache)), expected, **CLOSE)
    blocked = every.copy()
    blocked[..., 4] = [True, False]  # the last piece does not see the one before it
    without = model(ids[:, 5:], np.ones((1, 5), bool), cache=cache, positions=[[5]])
    got = logits(model(ids[:, 4:], blocked, cache=cache))
    np.testing.assert_allclose(got[:, 1:], logits(without), **CLOSE)


def test_the_length_limit_counts_cached_pieces(tmp_path):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path, positions=8))
    cache = model(ids_of(1, 7), store_cache=True).cache
    assert model([[1]], cache=cache).logits.shape == (1, 1, 50)
    with pytest.raises(ValueError, match="9 pieces is longer than the 8 positions"):
        model([[1, 2]], cache=cache)


def test_decoders_have_caches_too(model, tmp_path):
    decoder = LlamaDecoder.from_path(small_models.llama(tmp_path))
    ids = ids_of(2, 5)
    cache = decoder(ids[:, :3], store_cache=True).cache
    state = np.asarray(decoder(ids[:, 3:], cache=cache).last_hidden_layer_state)
    whole = np.asarray(decoder(ids).last_hidden_layer_state)
    np.testing.assert_allclose(state, whole[:, 3:], **CLOSE)
    assert repr(cache[1]) == "KeyValueCache(layer=1, batch=2, keys=3)"
