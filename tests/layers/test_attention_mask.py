"""Attention masks as objects; what they do in a model stands in tests/models."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers.layers import AttentionMask
from curated_transformers.layers.attention import create_causal_mask

MASK = np.array([[True, True, False], [True, False, False]])
#: The lowest finite values: all exponent bits but the last, all mantissa bits, a sign.
LOWEST_BITS = {"float32": 0xFF7FFFFF, "float16": 0xFBFF, "bfloat16": 0xFF7F}


def lowest(dtype):
    if dtype == "bfloat16":  # the upper half of a float32
        return np.uint32(LOWEST_BITS[dtype] << 16).view(np.float32)
    width = {"float32": np.uint32, "float16": np.uint16}[dtype]
    return width(LOWEST_BITS[dtype]).view(dtype)


def test_a_mask_by_key_is_stored_with_four_dimensions():
    mask = AttentionMask(MASK)
    assert (mask.shape, mask.dim(), mask.device) == ((2, 1, 1, 3), 4, "cpu")
    assert isinstance(mask.bool_mask, Tensor)
    np.testing.assert_array_equal(mask.bool_mask.numpy()[:, 0, 0], MASK)


def test_a_mask_by_query_is_stored_as_it_is():
    given = np.tri(4, dtype=bool)[None, None]
    mask = AttentionMask(given)
    assert mask.shape == (1, 1, 4, 4)
    assert np.shares_memory(mask.bool_mask.numpy(), given)


@pytest.mark.parametrize(
    "given", [MASK, Tensor(MASK), MASK.tolist(), np.asfortranarray(MASK), memoryview(MASK)]
)
def test_masks_are_made_of_anything_like_an_array(given):
    assert AttentionMask(given) == AttentionMask(MASK)


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3), (1, 1, 1, 1, 3)])
def test_other_ranks_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be a tensor of shape \[batch, keys\] or"):
        AttentionMask(np.ones(shape, dtype=bool))


@pytest.mark.parametrize("dtype", ["int64", "float32", "uint8"])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=f"attention mask to be of dtype bool, was: {dtype}"):
        AttentionMask(MASK.astype(dtype))


def test_masks_are_equal_when_they_say_the_same():
    assert AttentionMask(MASK) == AttentionMask(MASK.copy())
    assert AttentionMask(MASK) == AttentionMask(MASK[:, None, None])
    assert AttentionMask(MASK) != AttentionMask(~MASK)
    assert AttentionMask(MASK) != AttentionMask(MASK[:1])
    assert AttentionMask(MASK) != MASK.tolist()
    with pytest.raises(TypeError, match="unhashable"):
        hash(AttentionMask(MASK))


@pytest.mark.parametrize("duplicate", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_copies_are_equal(duplicate):
    assert duplicate(AttentionMask(MASK)) == AttentionMask(MASK)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_logit_mask_is_zero_or_the_lowest_finite_value(dtype):
    result = AttentionMask(MASK).logit_mask(dtype)
    assert result.dtype == dtype
    assert result.shape == (2, 1, 1, 3)
    np.testing.assert_array_equal(result.numpy()[:, 0, 0], np.where(MASK, 0, lowest(dtype)))
    assert np.isfinite(result.numpy()).all()


def test_a_logit_mask_takes_numpys_types():
    assert AttentionMask(MASK).logit_mask(np.float16).dtype == "float16"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masked_logits_become_the_lowest_finite_value(dtype):
    values = np.linspace(-2, 2, 2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    logits = Tensor(values.astype(np.float32)).to(dtype)
    before = logits.numpy().copy()
    result = AttentionMask(MASK).apply_logit_mask(logits)
    assert (result.dtype, result.shape) == (dtype, (2, 4, 5, 3))
    expected = np.where(MASK[:, None, None], before, lowest(dtype))
    np.testing.assert_array_equal(result.numpy(), expected)
    np.testing.assert_array_equal(logits.numpy(), before)


def test_logits_may_be_an_array():
    result = AttentionMask(MASK).apply_logit_mask(np.zeros((2, 1, 1, 3)))
    assert result.dtype == "float32"
    assert (result.numpy()[:, 0, 0] == 0).tolist() == MASK.tolist()


def test_logits_that_are_no_floats_are_refused():
    with pytest.raises(ValueError, match="float32, float16, bfloat16, were: int64"):
        AttentionMask(MASK).apply_logit_mask(np.zeros((2, 1, 1, 3), dtype=int))
    with pytest.raises(ValueError, match="were: bool"):
        AttentionMask(MASK).logit_mask("bool")


def test_merged_masks_allow_what_both_allow():
    causal = np.tri(3, dtype=bool)[None, None]
    merged = AttentionMask(MASK).merge_mask(AttentionMask(causal))
    assert merged.shape == (2, 1, 3, 3)
    for b, q, k in np.ndindex(2, 3, 3):
        assert merged.bool_mask[b, 0, q, k].item() == (MASK[b, k] and k <= q)


def test_filters_keep_sequences():
    mask = AttentionMask(MASK)
    assert mask.filter_batch_items([False, True]) == AttentionMask(MASK[1:])
    assert mask.filter_batch_items(Tensor([True, False])) == AttentionMask(MASK[:1])
    assert mask.filter_batch_items(np.zeros(2, bool)).shape == (0, 1, 1, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((2, 1), bool), "must be a 1D tensor, has 2 dimensions"),
        ([True], r"filter size \(1\) must match attention mask batch size \(2\)"),
        ([1, 0], "filter dtype must be bool, was: int64"),
    ],
)
def test_filters_are_checked(rows, message):
    with pytest.raises(ValueError, match=message):
        AttentionMask(MASK).filter_batch_items(rows)


@pytest.mark.parametrize("fill", [True, False])
def test_longer_masks_end_with_the_fill_value(fill):
    longer = AttentionMask(MASK).extend_length(2, fill)
    assert longer == AttentionMask(np.c_[MASK, np.full((2, 2), fill)])


@pytest.mark.parametrize("count", [0, -1])
def test_masks_do_not_become_shorter(count):
    with pytest.raises(ValueError, match=f"at least one key, was: {count}"):
        AttentionMask(MASK).extend_length(count, True)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (4, 4), (1, 5), (3, 5), (0, 2)])
def test_a_causal_mask_lets_the_last_queries_see_what_came_before(n_queries, n_keys):
    query, key = np.zeros((2, 3, n_queries, 8)), np.zeros((2, 3, n_keys, 8))
    mask = create_causal_mask(query, Tensor(key))
    assert mask.shape == (1, 1, n_queries, n_keys)
    for i, j in np.ndindex(n_queries, n_keys):
        assert mask.bool_mask[0, 0, i, j].item() == (j <= n_keys - n_queries + i)


def test_a_causal_mask_needs_a_key_for_each_query():
    with pytest.raises(ValueError, match="a key for each query, were: 2 and 3"):
        create_causal_mask(np.zeros((1, 1, 3, 8)), np.zeros((1, 1, 2, 8)))
