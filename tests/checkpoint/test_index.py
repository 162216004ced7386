from __future__ import annotations

import io
import json
import struct

import pytest
from checkpoint_writers import safetensors
from torch_writer import archive, state, storage, tensor

from curated_transformers.checkpoint import ModelCheckpointType, find_checkpoints, load_checkpoint
from curated_transformers.repository import LocalRepository, Repository, RepositoryFile

INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model.bin"


def write_shard(path, **values):
    header = {
        name: {"dtype": "U8", "shape": [1], "data_offsets": [place, place + 1]}
        for place, name in enumerate(values)
    }
    path.write_bytes(safetensors(header, bytes(values.values())))


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_single_file_comes_before_the_index(tmp_path):
    write_shard(tmp_path / "model.safetensors", x=1)
    write_index(tmp_path, {"x": "other.safetensors"})
    assert load_checkpoint(tmp_path)["x"].tolist() == [1]


def test_shards_are_one_mapping(tmp_path):
    write_shard(tmp_path / "a.safetensors", x=1, y=2)
    write_shard(tmp_path / "b.safetensors", z=3)
    write_index(tmp_path, {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"})
    checkpoint = load_checkpoint(LocalRepository(tmp_path))
    assert {name: tensor.item() for name, tensor in checkpoint.items()} == {"x": 1, "y": 2, "z": 3}
    files, kind = find_checkpoints(LocalRepository(tmp_path))
    assert [file.path for file in files] == [str(tmp_path / f"{n}.safetensors") for n in "ab"]
    assert kind is ModelCheckpointType.SAFE_TENSORS
    assert kind.pretty_name == "SafeTensors"


def test_parameter_in_two_shards_is_refused(tmp_path):
    write_shard(tmp_path / "a.safetensors", x=1)
    write_shard(tmp_path / "b.safetensors", x=1)
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
    with pytest.raises(ValueError, match="`x` stands in two shards"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/../../b", "a\\b", "a\0b", "", ".", "a//b", 3, None]
)
def test_file_names_that_lead_elsewhere_are_refused(name, tmp_path):
    write_index(tmp_path, {"x": name})
    with pytest.raises(ValueError, match="not a relative path inside"):
        load_checkpoint(tmp_path)


def test_missing_shard_is_reported_although_torch_files_exist(tmp_path):
    write_index(tmp_path, {"x": "a.safetensors"})
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    message = "File for sharded checkpoint type SafeTensors could not be found at .*a.safetensors"
    with pytest.raises(OSError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Index file for sharded checkpoint type SafeTensors could not be loaded"),
        ("[]", "Index file for sharded checkpoint type SafeTensors could not be loaded"),
        ("{}", "Invalid index file in sharded SafeTensors"),
        ('{"weight_map": []}', "Invalid index file in sharded SafeTensors"),
    ],
)
def test_broken_index_is_refused(text, message, tmp_path):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(OSError, match=message):
        load_checkpoint(tmp_path)


def torch_file(**values):
    entries = {name: tensor(storage(name, 1), shape=(1,), strides=(1,)) for name in values}
    storages = {name: struct.pack("<f", value) for name, value in values.items()}
    return archive(state(entries), storages)


def test_torch_checkpoints_come_after_safetensors(tmp_path):
    (tmp_path / TORCH).write_bytes(torch_file(x=1))
    files, kind = find_checkpoints(LocalRepository(tmp_path))
    assert [file.path for file in files] == [str(tmp_path / TORCH)]
    assert kind is ModelCheckpointType.PYTORCH_STATE_DICT
    assert load_checkpoint(tmp_path)["x"].tolist() == [1.0]
    write_shard(tmp_path / "model.safetensors", x=2)
    assert load_checkpoint(tmp_path)["x"].tolist() == [2]


def test_broken_safetensors_are_reported_although_torch_files_exist(tmp_path):
    (tmp_path / TORCH).write_bytes(torch_file(x=1))
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
        load_checkpoint(tmp_path)


def test_shards_of_torch_are_one_mapping(tmp_path):
    (tmp_path / "a.bin").write_bytes(torch_file(x=1, y=2))
    (tmp_path / "b.bin").write_bytes(torch_file(z=3))
    weight_map = {"x": "a.bin", "y": "a.bin", "z": "b.bin"}
    (tmp_path / f"{TORCH}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = load_checkpoint(tmp_path)
    assert {name: one.item() for name, one in checkpoint.items()} == {"x": 1, "y": 2, "z": 3}


def test_loaders_give_one_mapping_for_each_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(torch_file(x=1))
    (tmp_path / "b.bin").write_bytes(torch_file(y=2))
    files = [LocalRepository(tmp_path).file(f"{name}.bin") for name in "ab"]
    states = ModelCheckpointType.PYTORCH_STATE_DICT.loader(files)
    assert [list(state) for state in states] == [["x"], ["y"]]


def test_shards_of_torch_that_lead_elsewhere_are_refused(tmp_path):
    index = {"weight_map": {"x": "../a.bin"}}
    (tmp_path / f"{TORCH}.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="not a relative path inside"):
        load_checkpoint(tmp_path)


def test_folder_without_checkpoint_says_what_was_looked_for(tmp_path):
    with pytest.raises(OSError, match="Index file for sharded checkpoint type") as refusal:
        load_checkpoint(tmp_path)
    assert "model.safetensors" in str(refusal.value)


class MemoryFile(RepositoryFile):
    def __init__(self, raw):
        self.raw = raw

    def open(self, mode="rb", encoding=None):
        if self.raw is None:
            raise FileNotFoundError
        return io.BytesIO(self.raw)

    @property
    def path(self):
        return None

    def exists(self):
        return self.raw is not None


class MemoryRepository(Repository):
    def __init__(self, files):
        self.files = files

    def file(self, path):
        return MemoryFile(self.files.get(path))

    def pretty_path(self, path=None):
        return f"memory/{path}"

    def transaction(self):
        raise NotImplementedError


def test_files_without_a_local_path_are_read(tmp_path):
    write_shard(tmp_path / "x", x=5)
    repo = MemoryRepository({"model.safetensors": (tmp_path / "x").read_bytes()})
    assert load_checkpoint(repo)["x"].tolist() == [5]


def test_torch_files_without_a_local_path_are_read():
    repo = MemoryRepository({TORCH: torch_file(x=5)})
    assert load_checkpoint(repo)["x"].tolist() == [5]
    with pytest.raises(ValueError, match="MemoryFile"):
        load_checkpoint(MemoryRepository({TORCH: b"broken"}))
