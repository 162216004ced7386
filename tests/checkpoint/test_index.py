from __future__ import annotations

import io
import json

import pytest
from checkpoint_writers import safetensors

from curated_transformers.checkpoint import ModelCheckpointType, find_checkpoints, load_checkpoint
from curated_transformers.repository import LocalRepository, Repository, RepositoryFile

INDEX = "model.safetensors.index.json"


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


def test_torch_checkpoints_are_named_when_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    files, kind = find_checkpoints(LocalRepository(tmp_path))
    assert (len(files), kind.pretty_name) == (1, "PyTorch StateDict")
    with pytest.raises(NotImplementedError, match=r"pytorch_model\.bin"):
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
