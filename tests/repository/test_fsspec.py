"""Repositories on file systems with fsspec's interface: one made here, and fsspec's own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from curated_transformers.repository import (
    FsspecArgs,
    FsspecFile,
    FsspecRepository,
    ModelRepository,
    TransactionContext,
)


class Files:
    """The methods of a file system that are used, over a dictionary."""

    def __init__(self, files=None):
        self.files = dict(files or {})
        self.calls = []

    def exists(self, path, **options):
        self.calls.append(("exists", path, options))
        return path in self.files

    def open(self, path, mode="rb", **options):
        self.calls.append(("open", path, options))
        if mode.startswith("r"):
            stream = io.BytesIO(self.files[path])
            return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8")
        return Written(self.files, path, "b" in mode)

    def unstrip_protocol(self, path):
        return f"memo://{path}"


class Written(io.BytesIO):
    def __init__(self, files, path, binary):
        super().__init__()
        self.target, self.binary = (files, path), binary

    def write(self, data):
        return super().write(data if self.binary else data.encode())

    def close(self):
        if not self.closed:
            files, path = self.target
            files[path] = self.getvalue()
        super().close()


class Broken(Files):
    def exists(self, path, **options):
        raise RuntimeError("no connection")


def test_files_are_read():
    fs = Files({"/m/config.json": b'{"model_type": "bert"}'})
    repo = FsspecRepository(fs, "/m/")
    assert ModelRepository(repo).model_type() == "bert"
    file = repo.file("config.json")
    assert isinstance(file, FsspecFile)
    assert file.exists()
    assert file.path is None
    with file.open() as stream:
        assert stream.read() == b'{"model_type": "bert"}'


def test_pretty_paths_are_urls():
    repo = FsspecRepository(Files(), "/dir")
    assert repo.pretty_path() == "memo:///dir"
    assert repo.pretty_path("x") == "memo:///dir/x"
    assert FsspecRepository(Files(), Path("/dir")).pretty_path("x") == "memo:///dir/x"


def test_missing_files_are_told_by_their_url():
    file = FsspecRepository(Files(), "/m").file("x")
    assert not file.exists()
    with pytest.raises(FileNotFoundError, match="Cannot find fsspec path memo:///m/x"):
        file.open()


def test_other_errors_become_os_errors():
    file = FsspecFile(Broken(), "/m/x")
    assert not file.exists()
    with pytest.raises(OSError, match=r"Cannot ask for fsspec path memo:///m/x: no connection"):
        file.is_there()
    with pytest.raises(OSError, match="Cannot open fsspec path memo:///m/x") as error:
        file.open()
    assert isinstance(error.value.__cause__, RuntimeError)


def test_arguments_reach_the_file_system():
    fs = Files({"/m/x": b""})
    arguments = FsspecArgs(token="secret", depth=2)
    file = FsspecRepository(fs, "/m", fsspec_args=arguments).file("x")
    file.exists()
    file.open("r", encoding="utf-8").close()
    options = {"token": "secret", "depth": 2}
    assert fs.calls[0] == ("exists", "/m/x", options)
    assert fs.calls[-1] == ("open", "/m/x", {"encoding": "utf-8", **options})
    assert "secret" not in repr(arguments)


def test_files_are_written():
    fs = Files()
    with FsspecFile(fs, "/m/x").open("w") as stream:
        stream.write("é")
    assert fs.files == {"/m/x": "é".encode()}


def test_transactions_warn_and_write_through():
    fs = Files()
    repo = FsspecRepository(fs, "/m")
    with pytest.warns(UserWarning, match="Transaction support is currently not implemented for"):
        transaction = repo.transaction()
    assert isinstance(transaction, TransactionContext)
    with pytest.raises(RuntimeError), transaction:  # noqa: PT012
        assert transaction.repo is repo
        with transaction.open("x", "wb") as stream:
            stream.write(b"1")
        raise RuntimeError
    assert fs.files == {"/m/x": b"1"}


@pytest.mark.parametrize("path", ["../x", "/x", "a\\b", ""])
def test_paths_stay_in_the_folder(path):
    with pytest.raises(ValueError, match="not a relative path"):
        FsspecRepository(Files(), "/m").file(path)


def test_local_files_through_fsspec_itself(tmp_path):
    local = pytest.importorskip("fsspec.implementations.local")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    repo = FsspecRepository(local.LocalFileSystem(), str(tmp_path))
    assert repo.pretty_path("config.json") == f"file://{tmp_path}/config.json"
    assert ModelRepository(repo).model_type() == "bert"
    with pytest.raises(FileNotFoundError, match=f"Cannot find fsspec path file://{tmp_path}/none"):
        repo.file("none").open()
    with repo.file("new.txt").open("w", encoding="utf-8") as stream:
        stream.write("é")
    assert (tmp_path / "new.txt").read_text(encoding="utf-8") == "é"
    with repo.file("new.txt").open("r", encoding="latin-1") as stream:
        assert stream.read() == "Ã©"
