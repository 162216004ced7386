"""Tensors as NumPy arrays and buffers."""

from __future__ import annotations

import copy
import ctypes
import pickle

import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers._core import MappedFile

NUMPY_TYPES = ["float32", "float16", "int64", "int32", "int8", "uint8", "bool"]


def make(dtype):
    values = [[1.5, 0, 3], [4, 0, 6]] if "float" in dtype else [[1, 0, 3], [4, 0, 6]]
    return Tensor(values).to(dtype)


@pytest.fixture
def mapped(tmp_path):
    np.arange(4, dtype=np.float32).tofile(tmp_path / "weights")
    return MappedFile(tmp_path / "weights").tensor("float32", (4,), 0)


# ---- NumPy ----


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
@pytest.mark.parametrize("convert", [np.asarray, Tensor.numpy, Tensor.__array__])
def test_arrays_share_the_memory(dtype, convert):
    tensor = make(dtype)
    array = convert(tensor)
    assert array.dtype == dtype
    array[1, 2] = 0
    assert tensor[1, 2].item() == 0
    assert np.shares_memory(array, tensor[:, ::2].numpy())


def test_strides_survive():
    tensor = make("float32")[::-1, ::2]
    for array in (np.asarray(tensor), tensor.numpy()):
        assert array.strides == (-12, 8)
        assert array.tolist() == [[4, 6], [1.5, 3]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copy_true_is_a_copy(dtype):
    tensor = make(dtype)
    array = np.array(tensor, copy=True)
    direct = tensor.__array__(copy=True)
    array[:] = direct[:] = -1
    assert tensor.tolist() == [[1.5, 0, 3], [4, 0, 6]]


def test_copy_false_shares_or_refuses():
    tensor = make("float32")
    assert np.shares_memory(np.array(tensor, copy=False), tensor.numpy())
    assert tensor.__array__(np.float32, copy=False).dtype == np.float32
    with pytest.raises(ValueError, match="without a copy"):
        tensor.__array__(np.float64, copy=False)
    with pytest.raises(ValueError, match="without a copy"):
        make("bfloat16").__array__(copy=False)
    with pytest.raises(ValueError, match="copy"):
        np.array(make("bfloat16"), copy=False)


@pytest.mark.parametrize("dtype", [np.float64, "int32", bool])
def test_another_dtype_is_converted_as_numpy_does(dtype):
    tensor = make("float32")
    expected = np.array([[1.5, 0, 3], [4, 0, 6]]).astype(dtype)
    for array in (np.asarray(tensor, dtype=dtype), tensor.__array__(dtype)):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(TypeError):
        make("float32").__array__("no such type")


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,) * 8])
def test_shapes_at_the_limits(shape):
    array = np.zeros(shape, dtype=np.float32)
    tensor = Tensor(array)
    assert (tensor.shape, tensor.ndim, tensor.dim()) == (shape, len(shape), len(shape))
    assert tensor.numel() == tensor.size
    assert (tensor.size, tensor.nbytes) == (array.size, array.nbytes)
    assert np.asarray(tensor).shape == shape
    assert tensor.tolist() == array.tolist()


def test_more_than_eight_dimensions_are_refused():
    with pytest.raises(ValueError, match="at most 8 dimensions, not 9"):
        Tensor(np.zeros((1,) * 9))


def test_item_needs_one_element():
    assert Tensor([[7]]).item() == 7
    with pytest.raises(ValueError, match="size 1"):
        Tensor([1, 2]).item()


# ---- buffers ----


@pytest.mark.parametrize(("dtype", "code"), list(zip(NUMPY_TYPES, "feqibB?", strict=True)))
def test_buffers_have_numpys_formats(dtype, code):
    view = memoryview(make(dtype))
    assert (view.format, view.shape, view.readonly) == (code, (2, 3), False)
    assert view.tobytes() == make(dtype).numpy().tobytes()


def test_a_buffer_of_a_strided_view():
    view = memoryview(make("int32")[:, ::-2])
    assert (view.strides, view.contiguous) == ((12, -8), False)
    assert view.tolist() == [[3, 1], [6, 4]]


def test_bfloat16_has_no_buffer_format():
    with pytest.raises(BufferError, match=r"numpy\(\)"):
        memoryview(make("bfloat16"))


def test_mapped_weights_are_read_only_everywhere(mapped):
    assert memoryview(mapped).readonly
    assert not np.asarray(mapped).flags.writeable
    assert not mapped.numpy().flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        mapped.numpy()[0] = 1
    with pytest.raises(BufferError, match="read-only"):
        get_buffer(mapped, WRITABLE)
    copied = mapped.to(copy=True).numpy()
    copied[0] = 1
    assert mapped.tolist() == [0, 1, 2, 3]


SIMPLE, WRITABLE, ND, STRIDES = 0, 1, 8, 24
C_CONTIGUOUS, F_CONTIGUOUS, ANY_CONTIGUOUS = 32 | STRIDES, 64 | STRIDES, 128 | STRIDES


def get_buffer(tensor, flags):
    """PyObject_GetBuffer: what memoryview cannot ask for."""
    view = (ctypes.c_char * 256)()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(tensor), view, flags)
    ctypes.pythonapi.PyBuffer_Release(view)


@pytest.mark.parametrize("flags", [SIMPLE, ND, C_CONTIGUOUS, ANY_CONTIGUOUS])
def test_consumers_of_contiguous_memory_get_no_other(flags):
    get_buffer(make("float32"), flags)
    with pytest.raises(BufferError, match="not contiguous"):
        get_buffer(make("float32")[:, ::2], flags)


def test_fortran_order_is_refused_unless_it_is_the_same():
    get_buffer(make("float32")[0], F_CONTIGUOUS)
    with pytest.raises(BufferError, match="Fortran"):
        get_buffer(make("float32"), F_CONTIGUOUS)


# ---- conversions and copies ----


def test_to_without_a_change_is_the_tensor_itself():
    tensor = make("float32")
    assert tensor.to("float32") is tensor
    assert tensor.to("cpu") is tensor
    assert tensor.to(device="cpu", dtype=np.float32) is tensor
    assert tensor.to(copy=True) is not tensor


def test_to_takes_device_and_dtype_in_any_order():
    for target in (("cpu", "float16"), ("float16", "cpu"), (np.float16,), (np.dtype("f2"),)):
        assert make("float32").to(*target).dtype == "float16"


@pytest.mark.parametrize("target", ["float32", "float16", "bfloat16"])
def test_integers_do_not_silently_become_floats(target):
    with pytest.raises(TypeError, match=f"cannot convert int64 to {target}"):
        make("int64").to(target)
    with pytest.raises(TypeError, match=f"cannot convert {target} to int64"):
        make("float32").to(target).to("int64")


@pytest.mark.parametrize("dtype", [*NUMPY_TYPES, "bfloat16"])
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_copies_and_pickles_keep_everything(dtype, duplicate):
    tensor = make(dtype)[:, ::-1]
    again = duplicate(tensor)
    assert (again.dtype, again.shape) == (dtype, (2, 3))
    assert again.tolist() == tensor.tolist()


def test_a_deep_copy_has_memory_of_its_own():
    tensor = make("float32")
    copy.deepcopy(tensor).numpy()[:] = -1
    assert tensor[0, 0].item() == 1.5


# ---- repr ----


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (Tensor([1, 2]), "Tensor([1, 2], shape=(2,), dtype=int64)"),
        (Tensor(1.5), "Tensor(1.5, shape=(), dtype=float32)"),
        (Tensor([0.5]).to("bfloat16"), "Tensor([0.5], shape=(1,), dtype=bfloat16)"),
        (Tensor(np.zeros((0, 2), np.int32)), "Tensor([], shape=(0, 2), dtype=int32)"),
        (
            Tensor([[True], [False]]),
            "Tensor([[ True],\n        [False]], shape=(2, 1), dtype=bool)",
        ),
    ],
)
def test_repr_shows_values_shape_and_type(tensor, text):
    assert repr(tensor) == text


def test_repr_of_a_large_tensor_fits_a_screen():
    text = repr(Tensor(np.ones((50, 60, 70), dtype=np.float32)))
    assert text.endswith("shape=(50, 60, 70), dtype=float32)")
    assert len(text.splitlines()) < 80
    assert max(map(len, text.splitlines())) <= 80


def test_repr_of_quantized_weights_shows_no_values(tmp_path):
    (tmp_path / "blocks").write_bytes(bytes(2 * 18))
    blocks = MappedFile(tmp_path / "blocks").tensor("q4_0", (2, 32), 0)
    assert repr(blocks) == "Tensor(shape=(2, 32), dtype=q4_0)"
    assert (blocks.nbytes, blocks.numpy().dtype, len(blocks)) == (36, np.float32, 2)
    with pytest.raises(BufferError, match=r"q4_0.*to\(\"float32\"\)"):
        blocks.__dlpack__(max_version=(1, 0))
    with pytest.raises(ValueError, match="cannot be indexed inside its rows"):
        blocks[0, 1]
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(blocks)
