"""Caches that users build, slice, join and store, against calls without a cache."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import small_models
from models.comparison import distance

from curated_transformers import Tensor
from curated_transformers._core import Cache
from curated_transformers.layers import AttentionMask, KeyValueCache
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.gpt_neox import GPTNeoXCausalLM
from curated_transformers.models.llama import LlamaCausalLM

# Relative to the norm of a token's logits. f32: sums in another order. Half precision: keys, values
# and logits are rounded to 8 (bf16) or 11 bits. Logits of another token are more than 0.5 off.
LIMITS = {"float32": 1e-5, "float16": 2**-8, "bfloat16": 2**-5}
RNG = np.random.default_rng(23)
N_CACHED, N_NEW = 67, 3  # more than a page of 64

KINDS = {
    "llama": (LlamaCausalLM, small_models.llama, {"positions": 80}, 2),
    "one kv head": (LlamaCausalLM, small_models.llama, {"kv_heads": 1, "layers": 3}, 1),
    "gpt_neox": (GPTNeoXCausalLM, small_models.gpt_neox, {"positions": 80}, 4),
}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module", params=LIMITS, ids=str)
def model(kind, request, tmp_path_factory):
    make, write, options, _ = kind
    return make.from_path(write(tmp_path_factory.mktemp("m"), dtype=request.param, **options))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return LlamaCausalLM.from_path(small_models.llama(tmp_path_factory.mktemp("llama")))


def ids_of(batch, length):
    return RNG.integers(0, 50, (batch, length))


def logits(output):
    return np.asarray(output.logits)


def assert_close(model, mine, expected):
    assert distance(mine, expected) <= LIMITS[model.dtype]


def rebuild(caches, change=lambda array: array):
    return [KeyValueCache(change(c.key), change(c.value)) for c in caches]


def test_a_rebuilt_cache_is_the_cache(model, kind):
    ids = ids_of(2, N_CACHED + N_NEW)
    stored = model(ids[:, :N_CACHED], store_cache=True).cache
    made = rebuild(stored, lambda tensor: tensor.numpy().copy())
    assert made[0].key.shape == (2, kind[3], N_CACHED, 8)
    for caches in (rebuild(stored), made, [*made[:1], *stored[1:]]):
        output = model(ids[:, N_CACHED:], cache=caches, store_cache=True)
        usual = model(ids[:, N_CACHED:], cache=stored, store_cache=True)
        np.testing.assert_array_equal(logits(output), logits(usual))
        assert output.cache == usual.cache
        assert_close(model, logits(output), logits(model(ids))[:, N_CACHED:])


@pytest.mark.parametrize("n", [0, 1, 40, 64, 66])
def test_the_beginning_of_a_cache_is_the_cache_of_the_beginning(model, n):
    ids, other = ids_of(2, N_CACHED), ids_of(2, N_NEW)
    stored = model(ids, store_cache=True).cache
    output = model(other, cache=rebuild(stored, lambda tensor: tensor[:, :, :n]))
    expected = logits(model(np.c_[ids[:, :n], other]))[:, n:]
    assert_close(model, logits(output), expected)


def test_reordered_and_repeated_sequences_go_on(model):
    """As a beam search does it."""
    ids, new, rows = ids_of(3, 10), ids_of(4, N_NEW), [2, 0, 0, 1]
    stored = model(ids, store_cache=True).cache
    output = model(new, cache=rebuild(stored, lambda tensor: tensor[rows]))
    assert_close(model, logits(output), logits(model(np.c_[ids[rows], new]))[:, 10:])


def test_sequences_of_several_calls_go_on_together(model):
    ids, new = ids_of(3, 9), ids_of(3, N_NEW)
    parts = [model(part, store_cache=True).cache for part in (ids[:1], ids[1:])]
    joined = [
        KeyValueCache(
            np.concatenate([one.key.numpy(), two.key.numpy()]),
            np.concatenate([one.value.numpy(), two.value.numpy()]),
        )
        for one, two in zip(*parts, strict=True)
    ]
    output = model(new, cache=joined)
    assert_close(model, logits(output), logits(model(np.c_[ids, new]))[:, 9:])


def test_pieces_of_several_calls_follow_each_other(model):
    """Keys are rotated already: each part was computed at its own positions."""
    ids, n = ids_of(2, 20), 12
    first = model(ids[:, :n], store_cache=True).cache
    whole = model(ids[:, n:-1], cache=first, store_cache=True).cache
    joined = [
        KeyValueCache(
            np.concatenate([one.key.numpy(), both.key.numpy()[:, :, n:]], axis=2),
            np.concatenate([one.value.numpy(), both.value.numpy()[:, :, n:]], axis=2),
        )
        for one, both in zip(first, whole, strict=True)
    ]
    output = model(ids[:, -1:], cache=joined)
    assert_close(model, logits(output), logits(model(ids))[:, -1:])


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("form", ["by key", "AttentionMask", "nested list"])
def test_padding_is_what_the_calls_mask_says(model, left, form):
    lengths, width = [5, 2, 9], 9
    rows = [ids_of(1, n + N_NEW)[0] for n in lengths]
    ids, mask = np.zeros((3, width), dtype=int), np.zeros((3, width), dtype=bool)
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        place = slice(width - n, width) if left else slice(0, n)
        ids[i, place], mask[i, place] = row[:n], True
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    stored = model(ids, mask, positions=positions, store_cache=True).cache
    # Whatever stands at masked places must not count.
    garbage = rebuild(
        stored, lambda tensor: np.where(mask[:, None, :, None], tensor.numpy(), np.nan)
    )
    longer = np.c_[mask, np.ones((3, N_NEW), dtype=bool)]
    given = {"by key": longer, "AttentionMask": AttentionMask(longer)}.get(form, longer.tolist())
    output = model(
        np.stack([row[-N_NEW:] for row in rows]),
        given,
        cache=garbage,
        positions=np.array(lengths)[:, None] + np.arange(N_NEW),
        store_cache=True,
    )
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        expected = logits(model(row[None]))[0, n:]
        assert_close(model, logits(output)[i], expected)
    for values in (output.cache[0].key, output.cache[-1].value):  # what is masked is zeros again
        masked = np.asarray(values).transpose(0, 2, 1, 3)[~longer]
        assert not masked.any()


def test_one_row_of_a_mask_counts_for_all(llama):
    ids, new = ids_of(2, 4), ids_of(2, 1)
    stored = llama(ids, store_cache=True).cache
    mask = np.array([[False, True, True, True, True]])
    rest = rebuild(stored, lambda tensor: tensor[:, :, 1:])
    expected = llama(new, cache=rest, positions=[[4], [4]])
    output = llama(new, mask, cache=rebuild(stored), positions=[[4], [4]])
    np.testing.assert_array_equal(logits(output), logits(expected))


def test_a_mask_by_query_goes_with_arrays_too(llama):
    ids = ids_of(1, 6)
    stored = llama(ids[:, :4], store_cache=True).cache
    mask = np.ones((1, 1, 2, 6), dtype=bool)
    mask[..., 2] = [True, False]
    output = llama(ids[:, 4:], mask, cache=rebuild(stored))
    np.testing.assert_array_equal(logits(output), logits(llama(ids[:, 4:], mask, cache=stored)))


def test_filtered_arrays_go_on_with_the_remaining_sequences(model):
    ids, keep = ids_of(3, 8), np.array([True, False, True])
    made = rebuild(model(ids[:, :6], store_cache=True).cache)
    kept = [cache.filter_batch_items(keep) for cache in made]
    expected = logits(model(ids))[keep, 6:]
    assert_close(model, logits(model(ids[keep, 6:], cache=kept)), expected)


def test_a_pickled_cache_goes_on(model):
    ids = ids_of(2, 8)
    stored = model(ids[:, :6], store_cache=True).cache
    again = pickle.loads(pickle.dumps(stored))
    output = model(ids[:, 6:], cache=again)
    np.testing.assert_array_equal(logits(output), logits(model(ids[:, 6:], cache=stored)))


def test_text_goes_on_from_a_rebuilt_cache(model):
    """Greedily, the cache taken apart and put together again at each step."""
    prompt = ids_of(1, 5)

    def text(change):
        output, pieces = model(prompt, store_cache=True), []
        for _ in range(12):
            pieces.append(int(logits(output)[0, -1].argmax()))
            output = model([pieces[-1:]], cache=change(output.cache), store_cache=True)
        return pieces

    pieces = text(rebuild)
    assert pieces == text(lambda caches: caches)
    assert len(set(pieces)) > 1  # else this shows nothing; take another seed


def test_another_element_type_is_rounded_to_the_caches(llama, tmp_path):
    """f32 arrays in a bf16 model: the cache that a bf16 array gives."""
    half = LlamaCausalLM.from_path(small_models.llama(tmp_path), dtype="bfloat16")
    ids = ids_of(2, 5)
    exact = rebuild(llama(ids, store_cache=True).cache)
    rounded = rebuild(exact, lambda tensor: tensor.to("bfloat16"))
    got, expected = (half([[1], [2]], cache=c, store_cache=True).cache for c in (exact, rounded))
    assert got == expected
    np.testing.assert_array_equal(got[0].key.numpy()[:, :, :5], rounded[0].key.numpy())


def test_arrays_of_one_model_go_into_another_one_with_the_same_weights(llama, tmp_path):
    twin = LlamaCausalLM.from_path(small_models.llama(tmp_path))
    ids = ids_of(1, 6)
    stored = llama(ids[:, :5], store_cache=True).cache
    with pytest.raises(ValueError, match="another model"):
        twin(ids[:, 5:], cache=stored)
    output = twin(ids[:, 5:], cache=rebuild(stored))
    np.testing.assert_array_equal(logits(output), logits(llama(ids[:, 5:], cache=stored)))


def test_layers_of_different_calls_are_joined_only_as_arrays(llama):
    one, two = (llama(ids_of(2, 3), store_cache=True).cache for _ in range(2))
    with pytest.raises(ValueError, match=r"different calls.*KeyValueCache\(cache.key, cache.value"):
        llama([[1], [1]], cache=[one[0], two[1]])
    mixed = llama([[1], [1]], cache=rebuild([one[0], two[1]]), store_cache=True).cache
    np.testing.assert_array_equal(mixed[0].key.numpy()[:, :, :3], one[0].key.numpy())
    np.testing.assert_array_equal(mixed[1].key.numpy()[:, :, :3], two[1].key.numpy())


def test_the_arrays_stay_as_they_are(llama):
    """The call copies them; what changes them later does not change what was computed."""
    made = rebuild(llama(ids_of(1, 5), store_cache=True).cache, lambda t: t.numpy().copy())
    before = pickle.loads(pickle.dumps(made))
    output = llama([[1]], cache=made, store_cache=True)
    assert made == before
    made[0].key.numpy()[:] = 7
    assert output.cache[0].key.numpy()[:, :, :5].tolist() == before[0].key.tolist()


SHAPE = (2, 2, 3, 8)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ((2, 4, 3, 8), ValueError, r"layer 1: .* \[2, 2, 3, 8\], but have \[2, 4, 3, 8\].*D20"),
        ((2, 1, 3, 8), ValueError, r"layer 1: .* but have \[2, 1, 3, 8\]$"),
        ((1, 2, 3, 8), ValueError, r"layer 1: .* but have \[1, 2, 3, 8\]$"),
        ((2, 2, 4, 8), ValueError, r"layer 1: .* but have \[2, 2, 4, 8\]$"),
        ((2, 2, 3, 16), ValueError, r"layer 1: .* but have \[2, 2, 3, 16\]$"),
        ((2, 3, 16), ValueError, r"layer 1: .* but have \[2, 3, 16\]$"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_layer(llama, key, error, message):
    good = KeyValueCache(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32))
    wrong = KeyValueCache(np.zeros(key, np.float32), np.zeros(key, np.float32))
    with pytest.raises(error, match=message):
        llama([[1], [1]], cache=[good, wrong])


def test_the_first_layer_is_checked_too(llama):
    for shape in ((2, 4, 3, 8), (2, 3, 8), (8,)):
        wrong = KeyValueCache(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match=r"layer 0: the keys .* \[batch, 2, columns, 8\]"):
            llama([[1], [1]], cache=[wrong, wrong])


def test_integers_are_no_keys(llama):
    wrong = KeyValueCache(np.zeros(SHAPE, int), np.zeros(SHAPE, int))
    with pytest.raises(TypeError, match=r"layer 0: .*float32, float16 or bfloat16, not int64"):
        llama([[1], [1]], cache=[wrong, wrong])


@pytest.mark.parametrize("n", [1, 3])
def test_another_number_of_layers_is_refused(llama, n):
    one = KeyValueCache(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32))
    with pytest.raises(ValueError, match=f"has 2 layers, but keys of {n} and values of {n}"):
        llama([[1], [1]], cache=[one] * n)


def test_calls_check_batches_and_masks_of_arrays(llama):
    caches = [KeyValueCache(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32))] * 2
    with pytest.raises(ValueError, match="the cache holds 2 sequences, the piece ids 3"):
        llama([[1], [1], [1]], cache=caches)
    for shape in ((2, 1), (2, 3), (2, 5), (3, 4)):
        with pytest.raises(ValueError, match=r"must cover 2 sequences of 4 pieces \(3 cached"):
            llama([[1], [1]], np.ones(shape, dtype=bool), cache=caches)
    with pytest.raises(ValueError, match="attention mask to be of dtype bool, was: int64"):
        llama([[1], [1]], np.ones((2, 4), dtype=int), cache=caches)


def test_the_length_limit_counts_cached_arrays(tmp_path):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path, positions=8))
    made = rebuild(model(ids_of(1, 7), store_cache=True).cache)
    assert model([[1]], cache=made).logits.shape == (1, 1, 50)
    with pytest.raises(ValueError, match="9 pieces is longer than the 8 positions"):
        model([[1, 2]], cache=made)


def test_an_empty_batch_of_arrays_is_refused_by_the_call(llama):
    made = rebuild(llama(ids_of(1, 3), store_cache=True).cache, lambda tensor: tensor[:0])
    with pytest.raises(ValueError, match="the cache holds 0 sequences"):
        llama([[1]], cache=made)


# ---- the core's own constructor ----


def test_the_core_takes_arrays_and_a_mask(llama):
    stored = llama(ids_of(2, 5), store_cache=True).cache
    keys, values = [c.key for c in stored], tuple(c.value for c in stored)
    mask = np.array([[False, True, True, False, True], [True] * 5])
    pages = Cache(llama.core, keys, values, mask)
    assert (pages.n_layers, pages.n_sequences, pages.n_columns) == (2, 2, 5)
    for layer in range(2):
        kept = np.where(mask[:, None, :, None], keys[layer].numpy(), 0)
        np.testing.assert_array_equal(pages.key(layer).numpy(), kept)
    again = Cache(model=llama.core, keys=np.stack([k.numpy() for k in keys]), values=values)
    np.testing.assert_array_equal(again.value(1).numpy(), values[1].numpy())


class Shrinking:
    """An array that empties a list when it is read."""

    def __init__(self, items):
        self.items = items

    def __array__(self, dtype=None, copy=None):
        self.items.clear()
        return np.zeros(SHAPE, np.float32)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda core, good: Cache(core, 5, good), TypeError, "keys must be a sequence"),
        (lambda core, good: Cache(core, good, None), TypeError, "values must be a sequence"),
        (lambda core, good: Cache(None, good, good), TypeError, "Model"),
        (lambda core, good: Cache(core, [good[0], "x"], good), TypeError, "keys"),
        (lambda core, good: Cache(core, good, good, [[True] * 3]), ValueError, r"shape \[2, 3\]"),
        (lambda core, good: Cache(core, good, good, [[1] * 3] * 2), ValueError, "dtype bool"),
    ],
)
def test_what_the_core_cannot_use_is_refused(llama, make, error, message):
    with pytest.raises(error, match=message):
        make(llama.core, [np.zeros(SHAPE, np.float32)] * 2)


def test_a_list_that_shrinks_while_it_is_read_does_no_harm(llama):
    keys = []
    keys += [Shrinking(keys), Tensor([1.0])]
    with pytest.raises(ValueError, match="keys of 1 and values of 2"):
        Cache(llama.core, keys, [np.zeros(SHAPE, np.float32)] * 2)


def test_encoders_have_no_cache(tmp_path):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path))
    with pytest.raises(ValueError, match="not causal; it has no cache"):
        Cache(encoder.core, [np.zeros(SHAPE, np.float32)] * 2, [np.zeros(SHAPE, np.float32)] * 2)
