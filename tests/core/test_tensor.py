"""Tensors: views, conversions, and memory shared with NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from curated_transformers import Device, Tensor


def test_numpy_memory_is_shared_both_ways():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = Tensor(array)
    array[1, 2] = 42
    assert tensor[1, 2].item() == 42
    assert np.shares_memory(tensor.numpy(), array)


@pytest.mark.parametrize(
    "key", [1, -1, slice(None, None, 2), (slice(1, 3), 2), (..., 0), slice(5, 1, -2)]
)
def test_basic_indexing_is_numpys_and_a_view(key):
    array = np.arange(60, dtype=np.float32).reshape(6, 10)
    indexed = Tensor(array)[key]
    np.testing.assert_array_equal(indexed.numpy(), array[key])
    assert np.shares_memory(indexed.numpy(), array)


def test_negative_and_broadcast_strides_are_imported():
    array = np.arange(12, dtype=np.int64).reshape(3, 4)[::-1, ::-1]
    np.testing.assert_array_equal(Tensor(array).numpy(), array)
    wide = np.broadcast_to(np.float32(3), (4, 5))
    np.testing.assert_array_equal(Tensor(wide).numpy(), wide)


def test_dlpack_round_trip_shares_memory():
    tensor = Tensor(np.arange(4, dtype=np.float32))
    array = np.from_dlpack(tensor)
    assert np.shares_memory(array, tensor.numpy())


def test_buffer_protocol_has_shape_and_format():
    view = memoryview(Tensor(np.zeros((2, 3), dtype=np.int32)))
    assert (view.shape, view.format, view.nbytes) == ((2, 3), "i", 24)


def test_bfloat16_becomes_float32_for_numpy():
    tensor = Tensor([1.0, 2.5, -3.140625]).to("bfloat16")
    assert tensor.dtype == "bfloat16"
    assert tensor.numpy().dtype == np.float32
    np.testing.assert_array_equal(tensor.numpy(), [1.0, 2.5, -3.140625])


def test_float16_rounds_as_numpy_does():
    values = np.array([1e-8, 6e-8, 65519, 65520, 0.1, np.nan, -np.inf], dtype=np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(Tensor(values).to("float16").numpy(), expected)


def test_pickle_keeps_values_and_dtype():
    copy = pickle.loads(pickle.dumps(Tensor([1.5, 2.0]).to("bfloat16")))
    assert copy.dtype == "bfloat16"
    assert copy.tolist() == [1.5, 2.0]


def test_out_of_range_index_names_it():
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        Tensor([1, 2, 3])[7]


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="unknown dtype"):
        Tensor([1.0]).to("float8")


def test_cuda_is_refused_with_advice():
    with pytest.raises(NotImplementedError, match="cpu"):
        Tensor([1.0]).to(device="cuda")


def test_devices_compare_with_strings():
    assert Device("cpu") == "cpu"
    assert Device("cuda:1").index == 1
    with pytest.raises(ValueError, match="unknown device"):
        Device("tpu")


def test_repr_names_shape_and_dtype():
    text = repr(Tensor(np.zeros((100, 100), dtype=np.float32)))
    assert "shape=(100, 100)" in text
    assert len(text) < 500
