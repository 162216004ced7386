"""What a tensor can be made of, and by which rule."""

from __future__ import annotations

import array

import numpy as np
import pytest

from curated_transformers import Device, Tensor


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ("float32", "float32"),
        ("float16", "float16"),
        ("float64", "float32"),
        ("int64", "int64"),
        ("int32", "int32"),
        ("int16", "int64"),
        ("uint16", "int64"),
        ("uint32", "int64"),
        ("uint64", "int64"),
        ("int8", "int8"),
        ("uint8", "uint8"),
        ("bool", "bool"),
    ],
)
def test_every_numpy_type_has_its_own_or_the_next_wider_type(given, dtype):
    values = np.array([[0, 1], [1, 100]]).astype(given)
    tensor = Tensor(values)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.numpy(), values)
    assert np.shares_memory(tensor.numpy(), values) == (given == dtype)


@pytest.mark.parametrize("given", ["complex64", "U3", "datetime64[s]", "O", "longdouble"])
def test_other_types_are_refused_by_name(given):
    with pytest.raises(TypeError, match=r"data has dtype .*expected float32"):
        Tensor(np.zeros(2, dtype=given))


@pytest.mark.parametrize("given", [">f4", ">i8", ">f2", ">f8"])
def test_foreign_byte_order_is_converted(given):
    values = np.array([1, 2, 300], dtype=given)
    np.testing.assert_array_equal(Tensor(values).numpy(), [1, 2, 300])


def test_a_field_of_a_record_is_copied_since_its_strides_are_no_whole_elements():
    records = np.zeros(3, dtype=[("id", "i1"), ("value", "f4")])
    records["value"] = [1, 2, 3]
    np.testing.assert_array_equal(Tensor(records["value"]).numpy(), [1, 2, 3])


def test_misaligned_memory_is_copied():
    raw = np.zeros(13, dtype=np.uint8)
    values = raw[1:].view(np.float32)
    values[:] = [1, 2, 3]
    assert not values.flags.aligned
    np.testing.assert_array_equal(Tensor(values).numpy(), [1, 2, 3])


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[:, ::-3], lambda a: a[1:, 2]])
def test_strided_arrays_are_shared(view):
    values = view(np.arange(20, dtype=np.float32).reshape(4, 5))
    tensor = Tensor(values)
    assert np.shares_memory(tensor.numpy(), values)
    np.testing.assert_array_equal(tensor.numpy(), values)


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        ([1.0, 2], "float32", (2,)),
        ((True, False), "bool", (2,)),
        (3, "int64", ()),
        (2.5, "float32", ()),
        ([], "float32", (0,)),
        (np.float16(2), "float16", ()),
        ([np.int32(1), np.int32(2)], "int32", (2,)),
        (range(3), "int64", (3,)),
        ([Tensor([1, 2]), Tensor([3, 4])], "int64", (2, 2)),
    ],
)
def test_numbers_and_nested_sequences(data, dtype, shape):
    tensor = Tensor(data)
    assert (tensor.dtype, tensor.shape) == (dtype, shape)


@pytest.mark.parametrize("ragged", [[[1, 2], [3]], [[1], 2], [[[1]], [[1], [2]]]])
def test_ragged_lists_are_refused_with_advice(ragged):
    with pytest.raises(ValueError, match=r"data must be an array, or nested lists .*equal lengths"):
        Tensor(ragged)


@pytest.mark.parametrize("data", ["text", None, {"a": 1}, object(), [2**70], b"raw"])
def test_what_holds_no_numbers_is_refused(data):
    with pytest.raises(TypeError, match="data has dtype"):
        Tensor(data)


@pytest.mark.parametrize(
    "buffer", [array.array("f", [1, 2, 3]), memoryview(array.array("f", [1, 2, 3]))]
)
def test_buffers_are_shared(buffer):
    tensor = Tensor(buffer)
    buffer[1] = 42
    assert tensor.tolist() == [1, 42, 3]


def test_a_tensor_of_a_tensor_shares_its_memory():
    values = np.arange(3, dtype=np.float32)
    assert np.shares_memory(Tensor(Tensor(values)).numpy(), values)


def test_the_dtype_argument_converts():
    assert Tensor([1.5], dtype="bfloat16").dtype == "bfloat16"
    assert Tensor([1, 0], bool).tolist() == [True, False]
    with pytest.raises(TypeError, match="cannot convert"):
        Tensor([1.5], dtype="int64")
    with pytest.raises(TypeError, match="dtype must be a dtype name"):
        Tensor([1.5], dtype=object())


def test_a_read_only_array_stays_read_only():
    values = np.zeros(2, dtype=np.float32)
    values.flags.writeable = False
    assert not Tensor(values).numpy().flags.writeable


# ---- what other libraries call a device or a type ----


class TorchDevice:
    """As far as a torch.device is looked at."""

    def __init__(self, type, index=None):
        self.type = type
        self.index = index


TorchDType = type("torch.dtype", (), {"__str__": lambda self: f"torch.{self.name}"})


def torch_dtype(name):
    dtype = TorchDType()
    dtype.name = name
    return dtype


@pytest.mark.parametrize("index", [None, 0])
def test_a_torch_device_names_the_cpu(index):
    assert Device(TorchDevice("cpu", index)) == Device("cpu")
    assert Tensor([1.0]).to(TorchDevice("cpu", index)).device == "cpu"


def test_a_torch_device_names_a_gpu():
    assert Device(TorchDevice("cuda", 1)) == Device("cuda:1")
    assert Device(TorchDevice("cuda")) == "cuda:0"
    assert Device("cuda", 1) != TorchDevice("cuda", 0)


@pytest.mark.parametrize("device", [TorchDevice("cuda", "x"), TorchDevice(3), 7, object()])
def test_what_is_no_device_is_a_type_error(device):
    with pytest.raises(TypeError):
        Device(device)


@pytest.mark.parametrize("index", [-1, 1 << 20, 1 << 40])
@pytest.mark.parametrize(
    "make", [lambda i: Device("cuda", i), lambda i: Device(TorchDevice("cuda", i))]
)
def test_the_number_of_a_gpu_has_limits(make, index):
    with pytest.raises((ValueError, OverflowError)):
        make(index)


def test_equal_devices_have_equal_hashes():
    assert len({Device("cpu"), Device("cpu:0"), Device(TorchDevice("cpu", 0))}) == 1
    assert {"cpu": 1, "cuda:1": 2}[Device("cuda", 1)] == 2


def test_devices_print_as_they_are_written():
    assert (str(Device("cuda:1")), repr(Device("cpu"))) == ("cuda:1", "Device('cpu')")
    assert (Device("cpu").type, Device("cpu").index) == ("cpu", None)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_torch_dtype_names_a_type(name):
    assert Tensor([1.0]).to(torch_dtype(name)).dtype == name
    assert Tensor([1.0], dtype=torch_dtype(name)).dtype == name
