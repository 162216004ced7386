"""Repositories of the Hugging Face Hub, as far as the local cache holds them."""

from __future__ import annotations

from typing import IO, Any

from .file import RepositoryFile
from .hub_cache import NotCachedError, cached_file, repository_folder
from .repository import Repository, TransactionContext


class HfHubFile(RepositoryFile):
    """A file of a repository on the Hub, looked up in the cache when it is constructed."""

    def __init__(self, repo: HfHubRepository, path: str) -> None:
        self._repo = repo
        self._remote_path = path
        self._cached = cached_file(repo.name, repo.revision, path)

    def open(self, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        where = self._repo.pretty_path(self._remote_path)
        if not mode.startswith("r") or "+" in mode:
            cause = ValueError(f"Unsupported mode: {mode}")
            raise OSError(f"File could not be opened: {where}") from cause
        if self._cached is None:
            raise NotCachedError(f"File not found: {where}: it")
        return self._cached.open(mode, encoding=encoding)

    @property
    def path(self) -> str | None:
        return str(self._cached) if self._cached else None

    def exists(self) -> bool:
        return self._cached is not None


class HfHubRepository(Repository):
    """A model repository on the Hugging Face Hub.

    ``name`` is ``NAME`` or ``ORG/NAME``; ``revision`` a branch, a tag or a commit. Only what is
    already in the local cache can be read in this version. Raises ``ValueError`` for an invalid
    name.
    """

    def __init__(self, name: str, *, revision: str = "main") -> None:
        repository_folder(name)
        self.name = name
        self.revision = revision

    def file(self, path: str) -> RepositoryFile:
        return HfHubFile(self, path)

    def pretty_path(self, path: str | None = None) -> str:
        name = f"{self.name}/{path}" if path else self.name
        return f"{name} (revision: {self.revision})"

    def transaction(self) -> TransactionContext:
        raise NotImplementedError(f"uploading to {self.pretty_path()} is not available yet")
