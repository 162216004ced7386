"""Files that torch.save wrote (tests/oracles/torch_files.py), and some that it could have."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_writer import (
    ORDERED,
    PROTO,
    STOP,
    TRUE,
    archive,
    asked,
    call,
    legacy,
    many,
    state,
    storage,
    tensor,
    text,
    write_archive_with_hole,
)

from curated_transformers.checkpoint import CheckpointUnpicklingError, TorchFile, load_checkpoint

GOLDEN = Path(__file__).parent.parent / "golden" / "torch"
FORMS = ("zip", "zip4", "cuda", "legacy")
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def expected():
    with np.load(GOLDEN / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def read(tmp_path):
    def read_bytes(raw):
        path = tmp_path / "pytorch_model.bin"
        path.write_bytes(raw)
        return TorchFile(path)

    return read_bytes


@pytest.mark.parametrize("form", FORMS)
def test_values_are_those_that_torch_saved(form, expected):
    file = TorchFile(GOLDEN / f"{form}.bin")
    assert list(file) == list(expected)
    for name in expected.keys() - {"int16"}:
        # float64 is rounded once, as NumPy does it.
        values = expected[name]
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        ours = file[name].numpy()
        assert ours.dtype == values.dtype, name
        np.testing.assert_array_equal(ours, values, err_msg=name)
    for name in ("bfloat16", "transposed.bfloat16"):
        assert file[name].dtype == "bfloat16"


@pytest.mark.parametrize("form", FORMS)
def test_an_unsupported_type_is_refused_only_when_asked_for(form):
    file = TorchFile(GOLDEN / f"{form}.bin")
    assert file.infos["int16"].shape == (3, 4)
    with pytest.raises(NotImplementedError, match="`int16` has the unsupported dtype ShortStorage"):
        file["int16"]


def test_tensors_of_a_zip_are_the_mapped_file_itself():
    file = TorchFile(GOLDEN / "zip.bin")
    with memoryview(file._file) as raw:
        mapped = np.frombuffer(raw, np.uint8)
        for name in ("float32", "bool", "rows", "tied.first", "one.row"):
            assert np.shares_memory(file[name].numpy(), mapped), name
        assert not np.shares_memory(file["transposed"].numpy(), mapped)
        del mapped


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tied_tensors_are_one(form):
    file = TorchFile(GOLDEN / f"{form}.bin")
    assert np.shares_memory(file["tied.first"].numpy(), file["tied.second"].numpy())


def test_tensors_outlive_file_and_mapping(read, tmp_path):
    file = read(archive(state({"x": tensor()}), {"0": VALUES.tobytes()}))
    values = file["x"]
    del file
    (tmp_path / "pytorch_model.bin").unlink()
    np.testing.assert_array_equal(values.numpy(), VALUES)


@pytest.mark.parametrize("padding", range(4))
def test_storages_at_any_offset(padding, read):
    raw = archive(state({"x": tensor()}), {"0": VALUES.tobytes()}, prefix="a" * padding + "/")
    np.testing.assert_array_equal(read(raw)["x"].numpy(), VALUES)


def test_files_without_notes_on_version_and_byte_order(read):
    raw = archive(state({"x": tensor()}), {"0": VALUES.tobytes()}, order=None, version=None)
    np.testing.assert_array_equal(read(raw)["x"].numpy(), VALUES)


def test_the_pickle_may_be_compressed(read):
    raw = archive(state({"x": tensor()}), {"0": VALUES.tobytes()}, deflated=("data.pkl",))
    np.testing.assert_array_equal(read(raw)["x"].numpy(), VALUES)


def test_strings_as_python_2_wrote_them(read):
    def old(value):
        return b"U" + bytes([len(value)]) + value.encode()

    pickled = state({"x": tensor()}).replace(text("x"), old("x")).replace(text("cpu"), old("cpu"))
    file = read(archive(pickled, {"0": VALUES.tobytes()}))
    np.testing.assert_array_equal(file["x"].numpy(), VALUES)


def test_a_state_as_python_2_wrote_it(read):
    pairs = b"](" + many(text("x"), tensor()) + many(text("y"), tensor()) + b"e"
    pickled = PROTO + call("collections", "OrderedDict", pairs) + STOP
    assert list(read(archive(pickled, {"0": VALUES.tobytes()}))) == ["x", "y"]


def test_parameters_are_their_tensors(read):
    parameter = call("torch._utils", "_rebuild_parameter", tensor(), TRUE, ORDERED)
    file = read(
        legacy(
            state(
                {
                    "x": tensor(storage(legacy=True)),
                    "y": parameter.replace(storage(), storage(legacy=True)),
                }
            ),
            {"0": VALUES.tobytes()},
        )
    )
    np.testing.assert_array_equal(file["y"].numpy(), VALUES)


def test_float64_beyond_float32_becomes_infinite(read):
    double = storage(n=2, kind=asked("torch", "DoubleStorage"))
    raw = archive(
        state({"x": tensor(double, shape=(2,), strides=(1,))}),
        {"0": np.array([1e300, -1e-300]).tobytes()},
    )
    np.testing.assert_array_equal(read(raw)["x"].numpy(), np.float32([np.inf, -0.0]))


def test_elements_that_share_memory_are_repeated(read):
    raw = archive(
        state(
            {"x": tensor(shape=(2, 3), strides=(0, 1)), "y": tensor(shape=(1, 6), strides=(0, 1))}
        ),
        {"0": VALUES.tobytes()},
    )
    file = read(raw)
    np.testing.assert_array_equal(file["x"].numpy(), [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(file["y"].numpy(), VALUES.reshape(1, 6))


def test_files_larger_than_32_bits_can_say(tmp_path):
    n = 5 << 30
    large = tensor(storage("0", n, kind=asked("torch", "ByteStorage")), shape=(n,), strides=(1,))
    pickled = state({"large": large, "x": tensor(storage("1"))})
    write_archive_with_hole(tmp_path / "x.bin", pickled, n, VALUES.tobytes())
    with zipfile.ZipFile(tmp_path / "x.bin") as archive:  # it is what we take it for
        assert [info.file_size for info in archive.infolist()] == [len(pickled), n, 24]
        assert archive.read("a/data/1") == VALUES.tobytes()
    file = TorchFile(tmp_path / "x.bin")
    np.testing.assert_array_equal(file["x"].numpy(), VALUES)
    assert file["large"].shape == (n,)
    assert file["large"][-3:].tolist() == [0, 0, 0]


def test_an_empty_state(read):
    assert dict(read(archive(PROTO + b"}" + STOP))) == {}
    assert dict(read(legacy(PROTO + ORDERED + STOP, {}))) == {}


def test_refused_globals_are_unpickling_errors_with_their_name_and_the_file(tmp_path):
    pickled = PROTO + call("os", "system", text("touch " + str(tmp_path / "done"))) + STOP
    (tmp_path / "pytorch_model.bin").write_bytes(archive(pickled))
    with pytest.raises(
        pickle.UnpicklingError, match=r"pytorch_model\.bin: .*`os\.system`"
    ) as error:
        load_checkpoint(tmp_path)
    assert isinstance(error.value, CheckpointUnpicklingError)
    assert isinstance(error.value, ValueError)
    assert not (tmp_path / "done").exists()


def test_many_tensors_fit_the_budget(read):
    """Somewhat more than the largest shards have."""
    entries = {f"model.layers.{i}.mlp.experts.gate_proj.weight": tensor() for i in range(20_000)}
    assert len(read(archive(state(entries), {"0": VALUES.tobytes()}))) == 20_000


def test_a_file_truncated_anywhere_is_refused(read):
    for raw in (
        archive(state({"x": tensor()}), {"0": VALUES.tobytes()}),
        legacy(state({"x": tensor(storage(legacy=True))}), {"0": VALUES.tobytes()}),
    ):
        for length in range(len(raw)):
            with pytest.raises(ValueError, match=r"pytorch_model\.bin|empty|bytes"):
                read(raw[:length])
