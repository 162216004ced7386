"""Indexing and iteration. NumPy is the oracle, and basic indexing must give a view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from curated_transformers import Tensor


@st.composite
def arrays_and_indices(draw):
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    return array, draw(basic_indices(shape, allow_newaxis=True, max_dims=6))


@settings(deadline=None)
@given(arrays_and_indices())
def test_basic_indexing_is_numpys_and_never_copies(pair):
    array, index = pair
    indexed = Tensor(array)[index]
    expected = array[index if isinstance(index, tuple) else (index,)]
    assert indexed.shape == expected.shape
    np.testing.assert_array_equal(indexed.numpy(), expected)
    if expected.size:
        assert np.shares_memory(indexed.numpy(), array)


@pytest.mark.parametrize("integer", [np.int64(1), np.int32(-1), np.uint8(2)])
def test_integers_of_numpy_make_views_too(integer):
    array = np.arange(6, dtype=np.int64).reshape(3, 2)
    row = Tensor(array)[integer]
    np.testing.assert_array_equal(row.numpy(), array[integer])
    assert np.shares_memory(row.numpy(), array)


@pytest.mark.parametrize(
    "index",
    [
        np.array([2, 0, 0]),
        [1, 2],
        np.array([True, False, True]),
        (slice(None), [0, 1]),
        (np.array([0, 2]), np.array([1, 0])),
        np.arange(6).reshape(3, 2) % 2 == 0,
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_index_arrays_and_masks_copy_as_numpy_does(index, dtype):
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    picked = Tensor(array).to(dtype)[index]
    assert picked.dtype == dtype
    np.testing.assert_array_equal(picked.numpy(), array[index])


def test_a_tensor_is_an_index():
    tensor = Tensor(np.arange(5, dtype=np.float32))
    assert tensor[Tensor([3, 1])].tolist() == [3, 1]
    assert tensor[Tensor([True, False, False, False, True])].tolist() == [0, 4]


@pytest.mark.parametrize(
    ("shape", "index"),
    [
        ((3,), (0, 0)),
        ((3,), (0, ..., 0)),
        ((3, 3), (slice(None), slice(None), ..., 0)),
        ((3, 3), (0, 0, 0)),
        ((3, 3), (..., 0, 0, 0)),
        ((), (0,)),
    ],
)
def test_more_indices_than_dimensions_are_refused(shape, index):
    with pytest.raises(IndexError, match="too many indices"):
        Tensor(np.zeros(shape, dtype=np.float32))[index]


@pytest.mark.parametrize("index", [3, -4, (0, 2), (slice(None), -3)])
def test_an_index_outside_names_the_length(index):
    with pytest.raises(IndexError, match=r"index -?\d is out of bounds for dimension \d of length"):
        Tensor(np.zeros((3, 2), dtype=np.float32))[index]


@pytest.mark.parametrize("index", ["a", 1.0, (0, "a"), {}])
def test_what_is_no_index_is_refused(index):
    with pytest.raises((IndexError, TypeError)):
        Tensor(np.zeros((3, 2), dtype=np.float32))[index]


def test_two_ellipses_are_refused():
    with pytest.raises(IndexError, match="ellipsis"):
        Tensor(np.zeros((3, 2), dtype=np.float32))[..., ...]


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="step"):
        Tensor([1, 2, 3])[::0]


def test_length_iteration_and_reversal():
    array = np.arange(6).reshape(3, 2)
    tensor = Tensor(array)
    assert len(tensor) == 3
    assert [row.tolist() for row in tensor] == array.tolist()
    assert [row.tolist() for row in reversed(tensor)] == array[::-1].tolist()
    first, *_ = tensor
    assert np.shares_memory(first.numpy(), array)


def test_a_scalar_has_no_length_and_no_rows():
    scalar = Tensor(3.5)
    assert scalar.shape == ()
    assert scalar[()].item() == 3.5
    with pytest.raises(TypeError, match="without dimensions"):
        len(scalar)
    with pytest.raises(TypeError, match="without dimensions"):
        list(scalar)


def test_tensors_cannot_be_assigned_to():
    with pytest.raises(TypeError):
        Tensor([1, 2])[0] = 3


@settings(deadline=None)
@given(array_shapes(max_dims=4, max_side=4), st.data())
def test_reshape_is_numpys_and_a_view(shape, data):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    flat = list(data.draw(st.permutations(shape)))
    flat[data.draw(st.integers(0, len(flat) - 1))] = -1
    reshaped = Tensor(array).reshape(*flat)
    np.testing.assert_array_equal(reshaped.numpy(), array.reshape(flat))
    assert np.shares_memory(reshaped.numpy(), array)
    assert Tensor(array).reshape(tuple(flat)).shape == reshaped.shape


def test_reshape_says_when_a_copy_would_be_needed():
    transposed = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    with pytest.raises(ValueError, match="contiguous"):
        transposed.reshape(6)
    np.testing.assert_array_equal(transposed.contiguous().reshape(6).numpy(), [0, 3, 1, 4, 2, 5])
    with pytest.raises(ValueError, match="cannot reshape"):
        transposed.reshape(4, -1)
