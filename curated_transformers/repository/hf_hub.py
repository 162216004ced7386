"""Repositories of the Hugging Face Hub: what is not in the local cache is downloaded into it.

A repository asks once what its revision is at the moment, and stays with that commit: all its files
are of one version, and what the cache holds of it needs no further question.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from . import environment
from .download import Progress, Wanted, download
from .errors import HubError, NetworkError, RemoteFileNotFoundError, ServerError
from .file import RepositoryFile, check_relative_path
from .hub_api import FileMetadata, file_metadata, is_commit
from .hub_cache import HubCache, not_cached
from .repository import Repository, TransactionContext
from .transport import Flow, run, run_one

#: A single file that is smaller has no progress bar of its own.
_QUIET_BELOW = 1 << 20


class HfHubFile(RepositoryFile):
    """A file of a repository on the Hub. Constructing it looks into the cache only."""

    def __init__(self, repo: HfHubRepository, path: str) -> None:
        self._repo = repo
        self._remote_path = check_relative_path(path, repo.name)
        self._metadata: FileMetadata | None = None
        commit = repo.commit or repo.cache.commit(repo.revision)
        self._cached = repo.cache.file(commit, path) if commit else None

    def open(self, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        """Opens the file, after a download if it is not cached; "w" uploads it when it is closed.

        Raises the ``HubError`` that says why it cannot: one that is a ``FileNotFoundError`` for
        what does not exist or, offline, is not cached.
        """
        where = self._repo.pretty_path(self._remote_path)
        if mode in ("w", "wb", "wt"):
            from .transaction import open_for_upload

            return open_for_upload(mode, encoding, self._upload)
        if mode not in ("r", "rb", "rt"):
            cause = ValueError(f"Unsupported mode: {mode}")
            raise OSError(f"File could not be opened: {where}") from cause
        try:
            run_one(self._resolve())
            _fetch([self], quiet_below=_QUIET_BELOW)
            assert self._cached is not None
            return self._cached.open(mode, encoding=encoding)
        except HubError as error:
            missing = isinstance(error, FileNotFoundError)
            prefix = "File not found" if missing else "File could not be opened"
            raise error.with_prefix(f"{prefix}: {where}: ") from error
        except OSError as error:
            raise OSError(f"File could not be opened: {where}: {error}") from error

    @property
    def path(self) -> str | None:
        return str(self._cached) if self._cached else None

    def exists(self) -> bool:
        """Whether the file can be read, from the cache or the Hub. Never raises: where the Hub
        gives no answer, a warning says why."""
        try:
            return self._is_found()
        except (OSError, ValueError) as error:
            self._warn_of_unknown(error)
            return False

    def is_there(self) -> bool:
        """Whether the file can be read. Raises the ``HubError`` that says why nobody can tell.

        If the Hub has not answered at all, and the cache holds files of the revision, those are
        what there is; a warning says so.
        """
        repo = self._repo
        try:
            return self._is_found()
        except (NetworkError, ServerError) as error:
            if repo.has_answered or not (repo.commit or repo.cache.commit(repo.revision)):
                raise
            self._warn_of_unknown(error)
            return False

    def _is_found(self) -> bool:
        try:
            run_one(self._resolve())
        except FileNotFoundError:
            return False
        return True

    def _warn_of_unknown(self, error: Exception) -> None:
        where = self._repo.pretty_path(self._remote_path)
        warnings.warn(f"Cannot tell whether {where} exists: {error}", stacklevel=3)

    def __repr__(self) -> str:
        return f"HfHubFile({self._repo.pretty_path(self._remote_path)!r})"

    def _resolve(self) -> Flow[None]:
        """Sets what is cached or, if nothing is, the metadata. Raises a ``HubError``."""
        repo, path = self._repo, self._remote_path
        if repo.commit is not None and self._is_known(repo.commit):
            return
        if environment.is_offline():
            self._use_cache(None)
            return
        if repo.unreachable is not None:
            self._use_cache(repo.unreachable)
            return
        tries = 2 if self._cached else 0  # what is cached is better than a long wait
        try:
            revision = repo.commit or repo.revision
            metadata = yield from file_metadata(repo.name, revision, path, most_tries=tries)
        except RemoteFileNotFoundError as error:
            repo.has_answered = True
            if error.commit is not None:
                repo.stay_with(error.commit)
                repo.cache.remember_absent(error.commit, path)
            raise
        except (NetworkError, ServerError) as error:
            repo.unreachable = error
            self._use_cache(error)
            return
        repo.has_answered = True
        repo.stay_with(metadata.commit)
        self._metadata = metadata
        self._is_known(metadata.commit)

    def _is_known(self, commit: str) -> bool:
        """Whether no question is needed about the file of a commit. Raises if it has none."""
        self._cached = self._repo.cache.file(commit, self._remote_path)
        if self._cached is not None:
            return True
        if self._repo.cache.is_absent(commit, self._remote_path):
            where = self._repo.pretty_path(self._remote_path)
            raise RemoteFileNotFoundError(f"{where} does not exist, as the Hub said earlier")
        return self._metadata is not None and self._metadata.commit == commit

    def _use_cache(self, error: HubError | None) -> None:
        """The cached file, or the error; None: the network must not be used."""
        repo = self._repo
        where = repo.pretty_path(self._remote_path)
        commit = repo.commit or repo.cache.commit(repo.revision)
        self._cached = repo.cache.file(commit, self._remote_path) if commit else None
        if self._cached is None and commit and repo.cache.is_absent(commit, self._remote_path):
            raise RemoteFileNotFoundError(f"{where} does not exist, as the Hub said earlier")
        if error is None:
            if self._cached is None:
                raise not_cached(where, ", and HF_HUB_OFFLINE is set: nothing is downloaded")
            return
        if self._cached is None:
            raise type(error)(f"{error}; {not_cached(where)}")
        if self._remote_path not in repo.warned:
            repo.warned.add(self._remote_path)
            warnings.warn(
                f"Couldn't reach Hugging Face Hub; using cached artifact for {where}: {error}",
                stacklevel=2,
            )

    def _wanted(self) -> Wanted | None:
        if self._cached is not None or self._metadata is None:
            return None
        return Wanted(self._repo.name, self._remote_path, self._metadata)

    def _downloaded(self, cached: Path) -> None:
        self._cached = cached

    def _upload(self, source: Path) -> None:
        from .upload import Addition, upload

        upload(self._repo.name, self._repo.revision, [Addition(self._remote_path, source)])
        self._repo.forget_commit()
        self._cached = self._metadata = None


class HfHubRepository(Repository):
    """A model repository on the Hugging Face Hub.

    ``name`` is ``NAME`` or ``ORG/NAME``; ``revision`` a branch, a tag or a commit. Raises
    ``ValueError`` for a name or a revision that cannot be one.
    """

    def __init__(self, name: str, *, revision: str = "main") -> None:
        self.name = name
        self.revision = check_relative_path(revision, f"revision of {name}")
        self.cache = HubCache(name)
        #: The commit that all files are taken from, as soon as it is known.
        self.commit = revision if is_commit(revision) else None
        #: Whether the Hub has said anything about a file.
        self.has_answered = False
        #: Why the Hub is not asked again.
        self.unreachable: HubError | None = None
        #: Files whose cached copies were used without asking, and the user told.
        self.warned: set[str] = set()

    def file(self, path: str) -> RepositoryFile:
        return HfHubFile(self, path)

    def pretty_path(self, path: str | None = None) -> str:
        name = f"{self.name}/{path}" if path else self.name
        return f"{name} (revision: {self.revision})"

    def transaction(self) -> TransactionContext:
        from .transaction import HfHubTransaction

        return HfHubTransaction(self)

    def stay_with(self, commit: str) -> None:
        """Takes all further files from a commit."""
        if self.commit is None:
            self.commit = commit

    def forget_commit(self) -> None:
        """Asks again what the revision is, as after a commit of our own."""
        if not is_commit(self.revision):
            self.commit = None


def fetch_files(files: Iterable[RepositoryFile]) -> None:
    """Downloads those files of the Hub that are not local, several at once, with one progress bar.

    Afterwards each has a ``path``. Files of other repositories are left alone. Raises a
    ``HubError``; what has been downloaded until then stays in the cache.
    """
    wanted = [file for file in files if isinstance(file, HfHubFile) and file.path is None]
    # The first question about a repository settles the commit, for all others.
    first = {id(file._repo): file for file in reversed(wanted) if file._repo.commit is None}
    run(file._resolve() for file in first.values())
    run(file._resolve() for file in wanted)
    _fetch(wanted)


def _fetch(files: list[HfHubFile], *, quiet_below: int = 0) -> None:
    """Downloads what is not cached of files that are resolved."""
    missing = [(file, item) for file in files if (item := file._wanted()) is not None]
    progress = Progress([item for _, item in missing], quiet_below=quiet_below)
    try:
        paths = run(download(item, progress) for _, item in missing)
    finally:
        progress.close()
    for (file, _), path in zip(missing, paths, strict=True):
        file._downloaded(path)
    for repo in {id(file._repo): file._repo for file in files}.values():
        if repo.commit is not None and repo.unreachable is None and not environment.is_offline():
            repo.cache.remember_commit(repo.revision, repo.commit)
