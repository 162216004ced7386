from __future__ import annotations

import struct

import numpy as np
import pytest
from checkpoint_writers import safetensors

from curated_transformers.checkpoint import SafeTensorsFile

DTYPES = {
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@pytest.fixture
def write(tmp_path):
    def write_file(header, data=b"", name="model.safetensors"):
        path = tmp_path / name
        path.write_bytes(safetensors(header, data))
        return path

    return write_file


@pytest.mark.parametrize("name", DTYPES)
def test_values_are_those_in_the_file(name, write):
    values = np.array([[0, 1, 1], [1, 0, 1]], dtype=DTYPES[name])
    header = {"x": {"dtype": name, "shape": [2, 3], "data_offsets": [0, values.nbytes]}}
    tensor = SafeTensorsFile(write(header, values.tobytes()))["x"]
    np.testing.assert_array_equal(tensor.numpy(), values)
    assert tensor.numpy().dtype == values.dtype


def test_bfloat16_keeps_its_dtype(write):
    data = struct.pack("<HH", 0x3F80, 0xC000)
    header = {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    tensor = SafeTensorsFile(write(header, data))["x"]
    assert tensor.dtype == "bfloat16"
    assert tensor.tolist() == [1.0, -2.0]


def test_unaligned_tensors_are_read(write):
    values = np.arange(3, dtype=np.float32)
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [1, 13]},
    }
    tensor = SafeTensorsFile(write(header, b"\1" + values.tobytes()))["b"]
    assert tensor.tolist() == [0.0, 1.0, 2.0]


def test_metadata_padding_scalars_and_empty_tensors_are_valid(write):
    header = (
        b'{"__metadata__": {"format": "pt"},'
        b'"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},'
        b'"e": {"dtype": "F32", "shape": [0, 4], "data_offsets": [4, 4]}}   '
    )
    file = SafeTensorsFile(write(header, struct.pack("<f", 2.5)))
    assert file.metadata == {"format": "pt"}
    assert file["s"].item() == 2.5
    assert file["e"].shape == (0, 4)
    assert list(file) == ["s", "e"]
    assert file.infos["s"].dtype == "F32"


def test_file_without_tensors_is_valid(write):
    assert dict(SafeTensorsFile(write({}))) == {}


def test_unsupported_dtype_is_refused_only_when_asked_for(write):
    header = {
        "d": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]},
        "f": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
    }
    file = SafeTensorsFile(write(header, bytes(12)))
    assert file["f"].tolist() == [0.0]
    assert "d" in file
    with pytest.raises(NotImplementedError, match="tensor `d` has the unsupported dtype F64"):
        file["d"]


def test_tensors_outlive_their_file_object(write):
    path = write({"x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"\3\4")
    tensor = SafeTensorsFile(path)["x"]
    path.unlink()
    assert tensor.tolist() == [3, 4]


def test_missing_file_and_missing_tensor(write, tmp_path):
    with pytest.raises(FileNotFoundError):
        SafeTensorsFile(tmp_path / "nothing.safetensors")
    with pytest.raises(KeyError):
        SafeTensorsFile(write({}))["x"]


def test_file_truncated_anywhere_is_refused(write, tmp_path):
    raw = write(
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)
    ).read_bytes()
    for length in range(len(raw)):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            SafeTensorsFile(path)
        path.unlink()
