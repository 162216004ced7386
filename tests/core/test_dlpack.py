"""DLPack both ways, against a consumer and a producer made from its header."""

from __future__ import annotations

import gc
import sys
import threading

import dlpack_structs as dl
import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers._core import MappedFile

TYPES = {
    "float32": (dl.FLOAT, 32),
    "float16": (dl.FLOAT, 16),
    "bfloat16": (dl.BFLOAT, 16),
    "int64": (dl.INT, 64),
    "int32": (dl.INT, 32),
    "int8": (dl.INT, 8),
    "uint8": (dl.UINT, 8),
    "bool": (dl.BOOL, 8),
}


def make(dtype):
    return Tensor([[1, 0, 1], [0, 1, 1]] if "float" not in dtype else [[1.0, 2, 3], [4, 5, 6]]).to(
        dtype
    )


@pytest.fixture
def mapped(tmp_path):
    """A tensor over a mapped file, which nobody may write to."""
    np.arange(4, dtype=np.float32).tofile(tmp_path / "weights")
    return MappedFile(tmp_path / "weights").tensor("float32", (4,), 0)


# ---- what leaves ----


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_the_capsule_is_the_newest_that_the_consumer_knows(version):
    capsule = Tensor([1.0]).__dlpack__(max_version=version)
    versioned = version is not None and version >= (1, 0)
    assert dl.capsule_name(capsule) == (b"dltensor_versioned" if versioned else b"dltensor")
    if versioned:
        assert dl.look_into(capsule).major == 1


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("dtype", TYPES)
def test_types_shapes_and_strides_are_exported(dtype, version):
    tensor = make(dtype)[:, ::2]
    capsule = tensor.__dlpack__(max_version=version)
    exported = dl.look_into(capsule).tensor
    assert (exported.code, exported.bits, exported.lanes) == (*TYPES[dtype], 1)
    assert (exported.device_type, exported.device_id) == (dl.CPU, 0)
    assert exported.shape[: exported.ndim] == [2, 2]
    assert exported.strides[: exported.ndim] == [3, 2]


def test_the_exported_memory_is_the_tensors():
    array = np.arange(6, dtype=np.float32)
    managed = dl.consume(Tensor(array)[::-2].__dlpack__(max_version=(1, 0)))
    assert dl.values_of(managed.tensor) == [5, 3, 1]
    array[5] = 42
    assert dl.values_of(managed.tensor)[0] == 42
    assert managed.flags == 0
    dl.delete(managed)


def test_a_copy_is_marked_as_one_and_is_one():
    array = np.arange(3, dtype=np.float32)
    managed = dl.consume(Tensor(array).__dlpack__(max_version=(1, 0), copy=True))
    array[:] = -1
    assert dl.values_of(managed.tensor) == [0, 1, 2]
    assert managed.flags == dl.IS_COPIED
    dl.delete(managed)


@pytest.mark.parametrize("copy", [None, False])
def test_without_need_nothing_is_copied(copy):
    array = np.arange(3, dtype=np.float32)
    capsule = Tensor(array).__dlpack__(max_version=(1, 0), copy=copy)
    assert dl.look_into(capsule).tensor.data == array.ctypes.data


def test_mapped_weights_leave_read_only_or_not_at_all(mapped):
    capsule = mapped.__dlpack__(max_version=(1, 0))
    assert dl.look_into(capsule).flags == dl.READ_ONLY
    with pytest.raises(BufferError, match=r"read-only.*to\(copy=True\)"):
        mapped.__dlpack__()
    with pytest.raises(BufferError, match="read-only"):
        mapped[1:].__dlpack__(max_version=(0, 9))


def test_a_copy_of_mapped_weights_is_writable_for_any_consumer(mapped):
    managed = dl.consume(mapped.__dlpack__(copy=True))
    assert dl.values_of(managed.tensor) == [0, 1, 2, 3]
    dl.delete(managed)
    capsule = mapped.__dlpack__(max_version=(1, 0), copy=True)
    assert dl.look_into(capsule).flags == dl.IS_COPIED


def test_read_only_arrays_leave_read_only():
    array = np.zeros(3, dtype=np.float32)
    array.flags.writeable = False
    with pytest.raises(BufferError, match="read-only"):
        Tensor(array).__dlpack__()
    assert not np.from_dlpack(Tensor(array)).flags.writeable


def test_the_device_is_the_cpu():
    tensor = Tensor([1.0])
    assert tensor.__dlpack_device__() == (dl.CPU, 0)
    assert dl.capsule_name(tensor.__dlpack__(dl_device=(dl.CPU, 0))) == b"dltensor"
    with pytest.raises(BufferError, match=r"DLPack device \(2, 0\)"):
        tensor.__dlpack__(dl_device=(dl.CUDA, 0))


def test_a_stream_is_refused():
    with pytest.raises(BufferError, match="stream=1"):
        Tensor([1.0]).__dlpack__(stream=1)


@pytest.mark.parametrize(
    "options",
    [{"max_version": "1.0"}, {"max_version": [1, 0]}, {"dl_device": 1}, {"dl_device": (1, "x")}],
)
def test_arguments_that_are_no_pairs_are_type_errors(options):
    with pytest.raises(TypeError):
        Tensor([1.0]).__dlpack__(**options)


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_an_unused_capsule_lets_go_of_the_memory(version):
    array = np.zeros(3, dtype=np.float32)
    before = sys.getrefcount(array)
    capsule = Tensor(array).__dlpack__(max_version=version)
    assert sys.getrefcount(array) == before + 1
    del capsule
    assert sys.getrefcount(array) == before


def test_a_used_capsule_keeps_the_memory_until_the_consumer_lets_go():
    array = np.zeros(3, dtype=np.float32)
    before = sys.getrefcount(array)
    managed = dl.consume(Tensor(array).__dlpack__(max_version=(1, 0)))
    gc.collect()
    assert sys.getrefcount(array) == before + 1
    worker = threading.Thread(target=dl.delete, args=(managed,))
    worker.start()
    worker.join()
    assert sys.getrefcount(array) == before


# ---- what comes in ----


@pytest.mark.parametrize("version", [0, 1])
def test_an_imported_tensor_shares_the_producers_memory(version):
    producer = dl.Producer(np.arange(6).reshape(2, 3)[:, ::2], version=version)
    tensor = Tensor(producer)
    assert tensor.shape == (2, 2)
    producer.array[1, 1] = 42
    assert tensor.tolist() == [[0, 2], [3, 42]]


@pytest.mark.parametrize("version", [0, 1])
def test_the_producer_is_released_once_when_the_last_view_goes(version):
    producer = dl.Producer([1, 2, 3], version=version)
    views = [Tensor(producer)]
    views += [views[0][1:], views[0].numpy(), memoryview(views[0])]
    while views:
        assert producer.released_by == []
        views.pop(0)
    assert len(producer.released_by) == 1


def test_the_producer_may_be_released_on_another_thread():
    producer = dl.Producer([1, 2, 3])
    held = [Tensor(producer)]
    worker = threading.Thread(target=held.clear)
    worker.start()
    worker.join()
    assert len(producer.released_by) == 1
    assert producer.released_by != [threading.get_ident()]


def test_a_read_only_producer_makes_a_read_only_tensor():
    array = Tensor(dl.Producer([1, 2], flags=dl.READ_ONLY)).numpy()
    assert not array.flags.writeable


def test_a_shape_without_strides_is_contiguous():
    assert Tensor(dl.Producer([[1, 2], [3, 4]], strides=None)).tolist() == [[1, 2], [3, 4]]


def test_the_byte_offset_counts():
    producer = dl.Producer([1, 2, 3, 4], byte_offset=8)
    producer.array = producer.array[:4]
    shape = (dl.c_int64 * 1)(2)
    producer.fields["shape"] = shape
    assert Tensor(producer).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"code": dl.FLOAT, "bits": 64}, TypeError, "float64"),
        ({"code": dl.COMPLEX, "bits": 64}, TypeError, "complex64"),
        ({"lanes": 2}, TypeError, "2 lanes"),
        ({"device_type": dl.CUDA}, BufferError, "device type 2"),
        ({"ndim": 9}, ValueError, "at most 8 dimensions"),
        ({"ndim": -1}, ValueError, "dimensions"),
        ({"data": None}, ValueError, "no data"),
        ({"shape": None}, ValueError, "no shape"),
        ({"byte_offset": 2}, BufferError, "aligned"),
    ],
)
def test_what_cannot_be_imported_is_refused(fields, error, message):
    producer = dl.Producer([1, 2], **fields)
    with pytest.raises(error, match=message):
        Tensor(producer)
    assert producer.released_by == []  # its capsule still owns the memory


def test_a_later_major_version_is_refused():
    with pytest.raises(BufferError, match=r"2\.0 is not supported"):
        Tensor(dl.Producer([1], version=2))


def test_what_is_no_capsule_is_refused():
    class Liar:
        def __dlpack__(self, **options):
            return "capsule"

    with pytest.raises(TypeError, match="did not return a DLPack capsule"):
        Tensor(Liar())


def test_the_producers_own_errors_come_through():
    class Broken:
        def __dlpack__(self, **options):
            raise BufferError("needs a gradient")

    with pytest.raises(BufferError, match="needs a gradient"):
        Tensor(Broken())


def test_our_own_tensors_pass_through_numpy_and_back():
    tensor = Tensor(np.from_dlpack(Tensor(np.arange(3, dtype=np.float32))))
    assert tensor.tolist() == [0, 1, 2]
