"""The cache: its layout, work without the network, and sharing it with others."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from hub_server import COMMIT, Fault

from curated_transformers.checkpoint.index import find_checkpoints
from curated_transformers.repository import (
    HfHubRepository,
    NetworkError,
    NotCachedError,
    RemoteFileNotFoundError,
    ServerError,
    fetch_files,
    transport,
)

NAME = "org/model"


@pytest.fixture
def folder(hub, cache):
    """Where the cache keeps org/model, of which nothing is cached yet."""
    hub.add(NAME, {"config.json": b"{}", "a/b/model.bin": b"\0" * 10}, large={"a/b/model.bin"})
    return cache / "models--org--model"


def read(path="config.json", revision="main"):
    with HfHubRepository(NAME, revision=revision).file(path).open() as file:
        return file.read()


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_the_layout_is_the_one_that_all_programs_share(folder, cache):
    read()
    read("a/b/model.bin")
    # git hash-object of "{}", and sha256sum of ten zero bytes
    text = "9e26dfeeb6e641a33dae4961196235bdb965b21b"
    binary = "01d448afd928065458cf670b60f5a594d735af0172c8d67f22a81680132681ca"
    assert tree(cache) == sorted(
        [
            f".locks/models--org--model/{text}.lock",
            f".locks/models--org--model/{binary}.lock",
            f"models--org--model/blobs/{text}",
            f"models--org--model/blobs/{binary}",
            "models--org--model/refs/main",
            f"models--org--model/snapshots/{COMMIT}/config.json",
            f"models--org--model/snapshots/{COMMIT}/a/b/model.bin",
        ]
    )
    assert (folder / "refs" / "main").read_text() == COMMIT
    snapshot = folder / "snapshots" / COMMIT
    assert os.readlink(snapshot / "config.json") == f"../../blobs/{text}"
    assert os.readlink(snapshot / "a" / "b" / "model.bin") == f"../../../../blobs/{binary}"


def test_refs_with_slashes_are_folders_and_commits_have_none(hub, folder):
    hub.repos[NAME].revisions["refs/pr/1"] = COMMIT
    read(revision="refs/pr/1")
    assert (folder / "refs" / "refs" / "pr" / "1").read_text() == COMMIT
    read("a/b/model.bin", revision=COMMIT)
    assert tree(folder / "refs") == ["refs/pr/1"]


def test_files_that_do_not_exist_are_remembered(hub, folder):
    assert not HfHubRepository(NAME).file("a/none.json").exists()
    assert (folder / ".no_exist" / COMMIT / "a" / "none.json").read_bytes() == b""
    repo = HfHubRepository(NAME)
    assert repo.file("config.json").exists()
    hub.seen.clear()
    assert not repo.file("a/none.json").exists()
    with pytest.raises(RemoteFileNotFoundError, match=r"File not found: org/model/a/none\.json"):
        repo.file("a/none.json").open()
    assert hub.seen == []


def test_a_file_that_appears_later_is_found(hub, folder):
    assert not HfHubRepository(NAME).file("new.json").exists()
    hub.repos[NAME].files["new.json"] = b"[]"
    hub.repos[NAME].revisions["main"] = "e" * 40
    assert read("new.json") == b"[]"


def test_a_new_version_is_used_and_the_old_one_kept(hub, folder):
    read()
    hub.repos[NAME].files["config.json"] = b'{"new": 1}'
    hub.repos[NAME].revisions["main"] = "e" * 40
    assert read() == b'{"new": 1}'
    assert (folder / "refs" / "main").read_text() == "e" * 40
    assert read(revision=COMMIT) == b"{}"


def test_content_that_is_there_is_not_downloaded_for_another_commit(hub, folder):
    read("a/b/model.bin")
    hub.repos[NAME].revisions["main"] = "e" * 40
    hub.seen.clear()
    assert read("a/b/model.bin") == b"\0" * 10
    assert hub.requests("GET") == []


def test_a_blob_of_the_wrong_size_is_not_believed(hub, folder):
    read("a/b/model.bin")
    file = folder / "snapshots" / COMMIT / "a" / "b" / "model.bin"
    file.resolve().write_bytes(b"short")
    file.unlink()
    assert read("a/b/model.bin") == b"\0" * 10


def test_copies_serve_where_links_cannot_be_made(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.warns(UserWarning, match="no symbolic links can be made"):
        assert read("a/b/model.bin") == b"\0" * 10
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    assert read() == b"{}"
    assert not (folder / "snapshots" / COMMIT / "config.json").is_symlink()
    assert all(not name.endswith(".new") for name in tree(folder))


# ---- without the network ----


def test_a_full_cache_works_offline(hub, folder, monkeypatch):
    read()
    hub.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    repo = HfHubRepository(NAME)
    assert repo.json_file("config.json") == {}
    assert repo.file("config.json").exists()
    assert not repo.file("a/b/model.bin").exists()
    with pytest.raises(NotCachedError, match="HF_HUB_OFFLINE is set"):
        fetch_files([repo.file("a/b/model.bin")])
    assert hub.seen == []


def test_a_full_cache_works_without_a_network_and_says_so(folder, monkeypatch):
    read()
    read("a/b/model.bin")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    repo = HfHubRepository(NAME)
    text = "Couldn't reach Hugging Face Hub; using cached artifact for org/model/config.json"
    with pytest.warns(UserWarning, match=text):
        assert repo.json_file("config.json") == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repo.json_file("config.json") == {}  # said once
    with pytest.raises(NetworkError, match="is not in the local cache"):
        repo.file("other.json").open()


def test_a_hub_that_is_down_is_asked_once(hub, folder):
    read()
    read("a/b/model.bin")
    hub.seen.clear()
    hub.fail("HEAD", "", *[Fault(status=503)] * 9)
    repo = HfHubRepository(NAME)
    with pytest.warns(UserWarning, match="using cached artifact"):
        repo.file("config.json").open().close()
    with pytest.warns(UserWarning, match="using cached artifact"):
        repo.file("a/b/model.bin").open().close()
    assert len(hub.seen) == 2  # with one retry: what is cached is better than a long wait
    with pytest.raises(ServerError, match="503"):
        repo.file("other.json").open()


def test_the_cached_version_is_used_as_a_whole(hub, folder):
    """When the Hub is lost halfway, files of two versions are not mixed."""
    read("a/b/model.bin")
    hub.repos[NAME].revisions["main"] = "e" * 40
    repo = HfHubRepository(NAME)
    repo.file("config.json").open().close()
    hub.fail("HEAD", "", *[Fault(status=503)] * transport.TRIES)
    with pytest.raises(ServerError):
        repo.file("a/b/model.bin").open()


def test_a_cache_that_cannot_be_written_can_be_read(hub, folder, monkeypatch):
    read()
    hub.repos[NAME].revisions["v1"] = COMMIT

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert read(revision="v1") == b"{}"
    assert not HfHubRepository(NAME).file("none.json").exists()


# ---- checkpoints ----


def test_loading_fetches_the_shards_and_nothing_else(hub, cache):
    import json

    import numpy as np
    from checkpoint_writers import write_safetensors

    from curated_transformers.checkpoint.index import load_checkpoint

    shards = {}
    for i in range(3):
        path = cache.parent / f"{i}.safetensors"
        write_safetensors(path, {f"w{i}": np.full(4, i, np.float32)})
        shards[f"model-{i}.safetensors"] = path.read_bytes()
    index = {"weight_map": {f"w{i}": f"model-{i}.safetensors" for i in range(3)}}
    files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "pytorch_model.bin": b"not wanted",
        "README.md": b"not wanted",
        **shards,
    }
    hub.add(NAME, files, large=set(shards))
    weights = load_checkpoint(HfHubRepository(NAME))
    assert {name: weights[name].tolist() for name in weights} == {
        f"w{i}": [float(i)] * 4 for i in range(3)
    }
    fetched = {seen.path.rpartition("/")[2] for seen in hub.requests("GET", "/resolve/")}
    assert fetched == {"model.safetensors.index.json", *shards}


def test_finding_a_checkpoint_downloads_no_weights(hub, cache):
    hub.add(NAME, {"model.safetensors": b"\0" * 10}, large={"model.safetensors"})
    (file,), _ = find_checkpoints(HfHubRepository(NAME))
    assert file.path is None
    assert hub.requests("GET") == []
