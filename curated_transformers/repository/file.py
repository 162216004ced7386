"""One file of a repository: something that can be opened, and may lie in the local file system."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from os import PathLike
from typing import IO, Any


class RepositoryFile(ABC):
    """A file that may or may not exist."""

    @abstractmethod
    def open(self, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        """Opens the file as the built-in ``open`` does.

        Raises ``FileNotFoundError`` when it does not exist, ``OSError`` for every other failure.
        """

    @property
    @abstractmethod
    def path(self) -> str | None:
        """Where the file lies locally; None when it does not."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether the file can be opened for reading. Never raises."""

    def is_there(self) -> bool:
        """The same for loading, where a file that nobody can ask about is not one that is missing.

        Raises ``OSError`` where ``exists`` would say no without knowing.
        """
        return self.exists()


class LocalFile(RepositoryFile):
    """A file of the local file system."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = os.fspath(path)

    def open(self, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        return open(self._path, mode=mode, encoding=encoding)

    @property
    def path(self) -> str | None:
        return self._path

    def exists(self) -> bool:
        return os.path.isfile(self._path)

    def __repr__(self) -> str:
        return f"LocalFile({self._path!r})"


def check_relative_path(path: object, source: str) -> str:
    """``path``, if it is a relative path with ``/`` that cannot lead out of its folder.

    Names of files come from downloaded indexes and from refs, so they are not trusted. ``source``
    is what the error says the path comes from. Raises ``ValueError``.
    """
    text = path if isinstance(path, str) else ""
    parts = text.split("/")
    if "\\" in text or "\0" in text or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{source}: {path!r} is not a relative path inside the repository")
    return text
