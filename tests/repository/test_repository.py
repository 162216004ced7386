from __future__ import annotations

from pathlib import Path

import pytest

from curated_transformers.generation import AutoGenerator
from curated_transformers.models import AutoCausalLM, LlamaDecoder
from curated_transformers.repository import (
    HfHubRepository,
    LocalFile,
    LocalRepository,
    ModelRepository,
    NotCachedError,
    TokenizerRepository,
)
from curated_transformers.tokenizers import AutoTokenizer

LOADERS = [kind.from_repo for kind in (AutoCausalLM, LlamaDecoder, AutoTokenizer, AutoGenerator)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def filled(cache, monkeypatch):
    """A cache with org/model, whose branch and pull request are one commit; no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = cache / "models--org--model"
    (folder / "refs" / "refs" / "pr").mkdir(parents=True)
    for ref in ("main", "refs/pr/1"):
        (folder / "refs" / ref).write_text(COMMIT)
    blob = folder / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_text('{"model_type": "bert"}')
    snapshot = folder / "snapshots" / COMMIT
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    (snapshot / "sub" / "file.txt").symlink_to("../../../blobs/abc")
    (snapshot / "gone.json").symlink_to("../../blobs/missing")
    return cache


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", COMMIT])
def test_cached_files_are_found_by_branch_ref_and_commit(revision, filled):
    repo = HfHubRepository("org/model", revision=revision)
    assert repo.json_file("config.json") == {"model_type": "bert"}
    assert repo.file("sub/file.txt").exists()
    assert repo.file("config.json").path is not None
    assert ModelRepository(repo).model_type() == "bert"


@pytest.mark.parametrize(
    ("name", "revision", "path"),
    [
        ("org/model", "main", "other.json"),
        ("org/model", "main", "gone.json"),
        ("org/model", "v2", "config.json"),
        ("other", "main", "config.json"),
    ],
)
def test_what_is_not_cached_is_a_clear_error(name, revision, path, filled):
    file = HfHubRepository(name, revision=revision).file(path)
    assert not file.exists()
    assert file.path is None
    with pytest.raises(FileNotFoundError, match=f"File not found: {name}/{path}") as refusal:
        file.open()
    assert isinstance(refusal.value, NotCachedError)
    assert "is not in the local cache" in str(refusal.value)
    assert "HF_HUB_OFFLINE is set" in str(refusal.value)


def test_paths_cannot_leave_a_folder(tmp_path):
    for part in ("../../x", "/etc/passwd", "a\\b", "a\0b", ""):
        with pytest.raises(ValueError, match="not a relative path"):
            LocalRepository(tmp_path).file(part)


def test_the_cache_is_where_the_environment_says(filled, tmp_path, monkeypatch):
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "hub").symlink_to(filled)
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert HfHubRepository("org/model").file("config.json").exists()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing"))
    assert not HfHubRepository("org/model").file("config.json").exists()
    monkeypatch.setenv("HF_HOME", "$XDG_CACHE_HOME/huggingface")
    assert HfHubRepository("org/model").file("config.json").exists()


def test_pretty_paths(tmp_path):
    repo = HfHubRepository("org/model", revision="v1")
    assert repo.pretty_path() == "org/model (revision: v1)"
    assert repo.pretty_path("a/b") == "org/model/a/b (revision: v1)"
    assert LocalRepository(tmp_path).pretty_path("a") == str(tmp_path / "a")
    assert repr(repo) == "HfHubRepository('org/model (revision: v1)')"
    assert repr(LocalRepository("folder")) == "LocalRepository('folder')"


def test_local_files(tmp_path):
    file = LocalFile(tmp_path / "x")
    assert not file.exists()
    with pytest.raises(FileNotFoundError):
        file.open()
    with file.open("w", encoding="utf-8") as stream:
        stream.write("é")
    assert file.exists()
    with file.open("r", encoding="utf-8") as stream:
        assert stream.read() == "é"
    assert not LocalFile(tmp_path).exists()


def test_transaction_writes_everything_or_nothing(tmp_path):
    repo = LocalRepository(tmp_path)
    with repo.transaction() as transaction:
        with transaction.open("sub/a.txt", "w", encoding="utf-8") as file:
            file.write("new")
        assert not repo.file("sub/a.txt").exists()
        with pytest.raises(OSError, match="has already been opened"):
            transaction.open("sub/a.txt", "w")
        with pytest.raises(OSError, match="mode 'r' is not supported inside a transaction"):
            transaction.open("b.txt", "r")
    assert (tmp_path / "sub" / "a.txt").read_text() == "new"
    with pytest.raises(RuntimeError), repo.transaction() as transaction:  # noqa: PT012
        transaction.open("b.txt", "wb").close()
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sub"]


@pytest.mark.parametrize("text", [None, "{", "[1]", "[" * 100_000, b"\xff"])
def test_broken_configs_have_the_documented_texts(text, tmp_path):
    for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json"):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    repo = LocalRepository(tmp_path)
    with pytest.raises(OSError, match="Cannot load config for the model at"):
        ModelRepository(repo).model_config()
    with pytest.raises(OSError, match="Couldn't find a valid config for the tokenizer at"):
        TokenizerRepository(repo).tokenizer_config()
    with pytest.raises(OSError, match="Could not load special tokens map for the tokenizer at"):
        TokenizerRepository(repo).special_tokens_map()


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b"[1]", b"[" * 100_000])
def test_a_broken_json_file_is_named(text, tmp_path):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ValueError, match=f"^{tmp_path}/x.json: (not|the JSON is)"):
        LocalRepository(tmp_path).json_file("x.json")


@pytest.mark.parametrize("encoding", ["nope", "utf-99"])
def test_an_unknown_encoding_leaves_nothing_behind(encoding, tmp_path):
    with pytest.raises(LookupError), LocalRepository(tmp_path).transaction() as transaction:
        transaction.open("a", "w", encoding=encoding)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_no_repository(load, kind, tmp_path):
    with pytest.raises(TypeError, match=r"repo must be a Repository, got .*; from_path"):
        load(repo=kind(tmp_path))


def test_wrappers_read_what_is_there(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"a": 1}')
    (tmp_path / "chat_template.jinja").write_text("x")
    repo = TokenizerRepository(LocalRepository(tmp_path))
    assert repo.tokenizer_config() == {"a": 1}
    assert repo.model_type() == "bert"
    assert repo.chat_template() == "x"
    assert not repo.tokenizer_json().exists()
