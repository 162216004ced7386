"""Repositories on any file system that follows the interface of fsspec.

fsspec need not be installed: only objects that the user passes are used.
"""

from __future__ import annotations

import os
import warnings
from os import PathLike
from types import TracebackType
from typing import IO, Any

from .file import RepositoryFile, check_relative_path
from .repository import Repository, TransactionContext


class FsspecArgs:
    """Further keyword arguments for the calls of a file system."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"FsspecArgs({', '.join(self.kwargs)})"  # values may be secrets


class FsspecFile(RepositoryFile):
    """A file of an fsspec file system."""

    def __init__(self, fs: Any, path: str, fsspec_args: FsspecArgs | None = None) -> None:
        self._fs = fs
        self._path = path
        self._kwargs = fsspec_args.kwargs if fsspec_args is not None else {}

    def open(self, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        try:
            if mode.startswith("r") and not self._fs.exists(self._path, **self._kwargs):
                raise FileNotFoundError(f"Cannot find fsspec path {self._url()}")
            more = {} if encoding is None else {"encoding": encoding}
            file: IO[Any] = self._fs.open(self._path, mode, **more, **self._kwargs)
            return file
        except FileNotFoundError:
            raise
        except Exception as error:  # file systems raise whatever their libraries do
            raise OSError(f"Cannot open fsspec path {self._url()}: {error}") from error

    @property
    def path(self) -> str | None:
        return None

    def exists(self) -> bool:
        try:
            return self.is_there()
        except OSError:
            return False

    def is_there(self) -> bool:
        try:
            return bool(self._fs.exists(self._path, **self._kwargs))
        except Exception as error:
            raise OSError(f"Cannot ask for fsspec path {self._url()}: {error}") from error

    def __repr__(self) -> str:
        return f"FsspecFile({self._url()!r})"

    def _url(self) -> str:
        return url_of(self._fs, self._path)


class FsspecRepository(Repository):
    """The files of a folder of an fsspec file system."""

    def __init__(
        self, fs: Any, path: str | PathLike[str], fsspec_args: FsspecArgs | None = None
    ) -> None:
        self.fs = fs
        self.path = os.fspath(path)
        self.fsspec_args = fsspec_args

    def file(self, path: str) -> RepositoryFile:
        return FsspecFile(self.fs, self._join(path), self.fsspec_args)

    def pretty_path(self, path: str | None = None) -> str:
        return url_of(self.fs, self._join(path) if path else self.path)

    def transaction(self) -> TransactionContext:
        return FsspecTransaction(self)

    def _join(self, path: str) -> str:
        return f"{self.path.rstrip('/')}/{check_relative_path(path, self.path)}"


class FsspecTransaction(TransactionContext):
    """Writes at once: no two file systems agree on what a transaction is."""

    def __init__(self, repo: FsspecRepository) -> None:
        self._repo = repo
        warnings.warn(
            "Transaction support is currently not implemented for fsspec: files are written when "
            "they are closed, also if an exception follows",
            stacklevel=3,
        )

    @property
    def repo(self) -> Repository:
        return self._repo

    def open(self, path: str, mode: str, encoding: str | None = None) -> IO[Any]:
        return self._repo.file(path).open(mode, encoding=encoding)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


def url_of(fs: Any, path: str) -> str:
    """A path with the protocol of its file system."""
    return str(fs.unstrip_protocol(path))
