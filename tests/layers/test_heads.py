"""Heads in projections: each value says where it has to go."""

from __future__ import annotations

import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers.layers import AttentionHeads, QkvMode, QkvSplit
from curated_transformers.layers.attention import (
    QkvSplitGroupedByHead,
    QkvSplitGroupedByKVHeads,
    combine_heads,
    split_heads,
)

B, S, D = 2, 3, 4
DTYPES = ["float32", "float16", "bfloat16"]


def labels(batch, part, head):
    """[S, D] of numbers below 256, exact in every element type, that name the place."""
    return (part * 80 + head * 13 + batch * 7 + np.arange(S)[:, None] * 5 + np.arange(D)) % 256.0


def layout(by_group, n_heads, n_kv_heads):
    """(part, head) in the order of the projection; parts are query, key, value."""
    if not by_group:
        return [
            (part, head)
            for part, n in ((0, n_heads), (1, n_kv_heads), (2, n_kv_heads))
            for head in range(n)
        ]
    size = n_heads // n_kv_heads
    return [
        place
        for group in range(n_kv_heads)
        for place in (*((0, group * size + i) for i in range(size)), (1, group), (2, group))
    ]


def projection(places):
    rows = [np.concatenate([labels(b, *place) for place in places], axis=1) for b in range(B)]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (6, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("split", [QkvSplitGroupedByHead(), QkvSplitGroupedByKVHeads()])
def test_heads_go_where_the_layout_says(split, n_heads, n_kv_heads, dtype):
    places = layout(isinstance(split, QkvSplitGroupedByKVHeads), n_heads, n_kv_heads)
    given = Tensor(projection(places)).to(dtype)
    parts = split.split(
        projection=given, head_width=D, n_query_heads=n_heads, n_key_value_heads=n_kv_heads
    )
    for part, (tensor, n) in enumerate(zip(parts, (n_heads, n_kv_heads, n_kv_heads), strict=True)):
        assert (tensor.dtype, tensor.shape) == (dtype, (B, n, S, D))
        for batch, head in np.ndindex(B, n):
            np.testing.assert_array_equal(tensor[batch, head].numpy(), labels(batch, part, head))


@pytest.mark.parametrize("split", [QkvSplitGroupedByHead(), QkvSplitGroupedByKVHeads()])
def test_keys_and_values_are_views(split):
    given = np.zeros((B, S, 8 * D), dtype=np.float32)
    _, key, value = split.split(
        projection=given, head_width=D, n_query_heads=4, n_key_value_heads=2
    )
    assert np.shares_memory(key.numpy(), given)
    assert np.shares_memory(value.numpy(), given)


@pytest.mark.parametrize("split", [QkvSplitGroupedByHead(), QkvSplitGroupedByKVHeads()])
@pytest.mark.parametrize("shape", [(B, S, 31), (B, 32), (B, S, 1, 32)])
def test_projections_of_another_shape_are_refused(split, shape):
    with pytest.raises(ValueError, match=r"must have the shape \[batch, seq, 32\], was: \[2"):
        split.split(
            projection=np.zeros(shape, np.float32),
            head_width=D,
            n_query_heads=4,
            n_key_value_heads=2,
        )


def test_strategies_are_equal_by_kind():
    assert QkvSplitGroupedByHead() == QkvSplitGroupedByHead()
    assert QkvSplitGroupedByHead() != QkvSplitGroupedByKVHeads()
    with pytest.raises(TypeError, match="abstract"):
        QkvSplit()


def test_modes_have_their_documented_values():
    assert {mode.name: mode.value for mode in QkvMode} == {
        "SEPARATE": 0,
        "MERGED_SPLIT_BEFORE": 1,
        "MERGED_SPLIT_AFTER": 2,
    }


def test_heads_are_made_by_their_factories():
    split = QkvSplitGroupedByHead()

    def heads(n_query_heads, n_key_value_heads):
        return AttentionHeads(
            n_query_heads=n_query_heads, n_key_value_heads=n_key_value_heads, qkv_split=split
        )

    assert AttentionHeads.uniform(6, split) == heads(6, 6)
    assert AttentionHeads.multi_query(6, split) == heads(6, 1)
    assert (
        AttentionHeads.key_value_broadcast(n_query_heads=6, n_key_value_heads=2, qkv_split=split)
        == heads(6, 2)
        != heads(6, 3)
    )


@pytest.mark.parametrize("make", [AttentionHeads, AttentionHeads.key_value_broadcast])
@pytest.mark.parametrize(
    ("query", "key_value", "message"),
    [
        (6, 4, r"query heads \(6\) must be a multiple of key/value heads \(4\)"),
        (2, 4, r"query heads \(2\) must be a multiple of key/value heads \(4\)"),
        (4, 0, "at least one head"),
        (0, 1, "at least one head"),
        (-4, -2, "at least one head"),
    ],
)
def test_heads_that_cannot_be_shared_are_refused(make, query, key_value, message):
    with pytest.raises(ValueError, match=message):
        make(n_query_heads=query, n_key_value_heads=key_value, qkv_split=QkvSplitGroupedByHead())


@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_are_split_and_combined(dtype):
    given = Tensor(projection([(0, h) for h in range(5)])).to(dtype)
    heads = split_heads(given, 5)
    assert (heads.dtype, heads.shape) == (dtype, (B, 5, S, D))
    for batch, head in np.ndindex(B, 5):
        np.testing.assert_array_equal(heads[batch, head].numpy(), labels(batch, 0, head))
    joined = combine_heads(heads)
    assert joined.dtype == dtype
    np.testing.assert_array_equal(joined.numpy(), given.numpy())


def test_splitting_heads_is_a_view():
    given = np.zeros((B, S, 8), dtype=np.float32)
    assert np.shares_memory(split_heads(given, 2).numpy(), given)


def test_shapes_that_have_no_heads_are_refused():
    with pytest.raises(ValueError, match=r"Width \(8\) must be a multiple .* heads \(3\)"):
        split_heads(np.zeros((1, 2, 8)), 3)
    with pytest.raises(ValueError, match=r"heads \(0\)"):
        split_heads(np.zeros((1, 2, 8)), 0)
    with pytest.raises(ValueError, match=r"\[batch, seq, width\], was: \[2, 8\]"):
        split_heads(np.zeros((2, 8)), 2)
    with pytest.raises(ValueError, match=r"head_width\], was: \[1, 2, 8\]"):
        combine_heads(np.zeros((1, 2, 8)))
