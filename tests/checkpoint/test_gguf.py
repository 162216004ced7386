from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from checkpoint_writers import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT8, UINT32, UINT64, gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from curated_transformers.checkpoint import GGUFFile

ENTRIES = [
    ("general.architecture", STRING, "llama"),
    ("a.number", UINT32, 7),
    ("a.long", UINT64, 2**63),
    ("a.float", FLOAT32, 0.5),
    ("a.flag", BOOL, 1),
    ("a.strings", ARRAY, (STRING, ["x", "", "Ġé"])),
    ("a.numbers", ARRAY, (INT32, [-1, 2])),
    ("a.empty", ARRAY, (STRING, [])),
    ("a.nested", ARRAY, (ARRAY, [(UINT8, [1, 2]), (STRING, ["y"])])),
]
VALUES = {
    "general.architecture": "llama",
    "a.number": 7,
    "a.long": 2**63,
    "a.float": 0.5,
    "a.flag": True,
    "a.strings": ["x", "", "Ġé"],
    "a.numbers": [-1, 2],
    "a.empty": [],
    "a.nested": [[1, 2], ["y"]],
}
MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def small_file() -> bytes:
    half = np.array([1.5, -2], dtype=np.float16)
    data = MATRIX.tobytes().ljust(32, b"\0") + half.tobytes()
    return gguf(ENTRIES, [("m", [3, 2], 0, 0), ("h", [2], 1, 32)], data)


@pytest.fixture
def write(tmp_path):
    def write_file(raw):
        path = tmp_path / "model.gguf"
        path.write_bytes(raw)
        return path

    return write_file


def test_metadata_has_python_values(write):
    metadata = GGUFFile(write(small_file())).metadata
    assert dict(metadata) == VALUES
    assert metadata["a.flag"] is True
    assert metadata.get("nothing") is None


def test_matrices_are_rows_by_columns(write):
    file = GGUFFile(write(small_file()))
    assert file["m"].shape == (2, 3)
    np.testing.assert_array_equal(file["m"].numpy(), MATRIX)
    assert file["h"].dtype == "float16"
    assert file["h"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("number", "dtype", "block_bytes"), [(2, "q4_0", 18), (3, "q4_1", 20), (8, "q8_0", 34)]
)
def test_quantized_blocks_decode_to_the_formats_formula(number, dtype, block_bytes, write):
    rng = np.random.default_rng(0)
    scale, smallest = np.float16(0.25), np.float16(-1.5)
    codes = rng.integers(-127, 128, 32) if dtype == "q8_0" else rng.integers(0, 16, 32)
    packed = codes.astype(np.int8) if dtype == "q8_0" else codes[:16] | codes[16:] << 4
    block = scale.tobytes() + (smallest.tobytes() if dtype == "q4_1" else b"")
    block += packed.astype(np.uint8).tobytes()
    assert len(block) == block_bytes
    tensor = GGUFFile(write(gguf(tensors=[("q", [32, 2], number, 0)], data=block * 2)))["q"]
    expected = {"q8_0": codes * 0.25, "q4_0": (codes - 8) * 0.25, "q4_1": codes * 0.25 - 1.5}[dtype]
    assert (tensor.dtype, tensor.shape) == (dtype, (2, 32))
    np.testing.assert_array_equal(tensor.to("float32").numpy(), np.stack([expected] * 2))


def test_version_2_and_other_alignments_are_read(write):
    data = bytes(64) + struct.pack("<f", 3.0)
    raw = gguf(
        [("general.alignment", UINT32, 64)], [("x", [1], 0, 64)], data, version=2, alignment=64
    )
    assert GGUFFile(write(raw))["x"].tolist() == [3.0]


def test_unsupported_type_is_refused_only_when_asked_for(write):
    tensors = [("k", [256], 10, 0), ("f", [1], 0, 160)]
    file = GGUFFile(write(gguf(tensors=tensors, data=bytes(164))))
    assert file["f"].tolist() == [0.0]
    with pytest.raises(NotImplementedError, match="tensor `k` has the unsupported dtype Q2_K"):
        file["k"]


def test_strings_that_are_not_utf8_are_refused_when_read(write):
    entries = [("a", STRING, b"\xff"), ("b", ARRAY, (STRING, ["x", b"\xff"])), ("c", UINT8, 1)]
    metadata = GGUFFile(write(gguf(entries))).metadata
    assert metadata["c"] == 1
    with pytest.raises(ValueError, match="key `a` is not UTF-8"):
        metadata["a"]
    with pytest.raises(ValueError, match="element of key `b` is not UTF-8"):
        metadata["b"]


def test_file_without_tensors_need_not_reach_the_data(write):
    assert len(GGUFFile(write(gguf(ENTRIES)))) == 0


def test_file_truncated_anywhere_is_refused(tmp_path):
    raw = small_file()
    for length in range(len(raw)):
        path = tmp_path / f"{length}.gguf"
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match=rf"{length}\.gguf"):
            GGUFFile(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_never_lead_outside_of_the_file(tmp_path_factory, data):
    raw = bytearray(small_file())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.sampled_from([0, 1, 4, 8, 9, 0x7F, 0x80, 0xFF]))
    path = tmp_path_factory.mktemp("changed") / "model.gguf"
    path.write_bytes(raw)
    try:
        file = GGUFFile(path)
        dict(file.metadata)
    except ValueError as error:
        message = str(error)
        assert "model.gguf" in message
        return
    for name, info in file.infos.items():
        assert 0 <= info.begin <= info.end <= len(raw)
        if info.dtype in file.supported:
            assert file[name].size == math.prod(info.shape)


@pytest.mark.real_model
def test_smollm2_is_read(smollm2):
    file = GGUFFile(smollm2)
    assert len(file.metadata["tokenizer.ggml.tokens"]) == 49152
    assert file["token_embd.weight"].shape == (49152, 576)
    assert {tensor.dtype for tensor in file.values()} == {"float32", "q8_0", "q4_1"}
