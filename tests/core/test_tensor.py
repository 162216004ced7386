"""Tensors: views, conversions, and memory shared with NumPy."""

from __future__ import annotations

import copy
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
    read = pickle.loads(pickle.dumps(Tensor([1.5, 2.0]).to("bfloat16")))
    assert read.dtype == "bfloat16"
    assert read.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_one_whole_number_is_an_int_and_an_index(dtype):
    tensor = Tensor(np.array([[1]], dtype))
    assert (int(tensor), float(tensor), bool(tensor)) == (1, 1.0, True)
    assert "abc"[tensor[0, 0]] == "b"


def test_a_row_of_one_element_indexes_as_an_array():
    row = Tensor([1])
    with pytest.raises(TypeError, match="without dimensions is an index"):
        "abc"[row]
    assert np.arange(3)[row].shape == Tensor([5, 6, 7])[row].shape == (1,)
    assert np.arange(3)[row[0]].shape == Tensor([5, 6, 7])[row[0]].shape == ()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_number_is_a_float_but_no_index(dtype):
    tensor = Tensor([1.5]).to(dtype)[0]
    assert (int(tensor), float(tensor), bool(tensor)) == (1, 1.5, True)
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        "abc"[tensor]


def test_numbers_are_values_not_the_bytes_in_memory():
    assert int(Tensor(np.uint8(ord("7")))) == ord("7")
    assert not Tensor(np.uint8([0]))


@pytest.mark.parametrize("convert", [int, float, bool])
@pytest.mark.parametrize("shape", [(0,), (2,), (2, 1)])
def test_several_elements_are_no_number(convert, shape):
    with pytest.raises(ValueError, match=r"one element|size 1"):
        convert(Tensor(np.zeros(shape, np.int64)))


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


@pytest.mark.parametrize("name", ["cpu", "cuda:1"])
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda device: pickle.loads(pickle.dumps(device))]
)
def test_devices_are_copied_and_pickled(name, duplicate):
    assert duplicate(Device(name)) == name


def test_repr_names_shape_and_dtype():
    text = repr(Tensor(np.zeros((100, 100), dtype=np.float32)))
    assert "shape=(100, 100)" in text
    assert len(text) < 500
