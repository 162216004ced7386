"""The layout of the Hugging Face cache on this machine, which other programs share.

HUB_CACHE/models--ORG--NAME/refs/REVISION          one line, the commit
                            blobs/ETAG             content; ETAG.incomplete while it comes
                            snapshots/COMMIT/PATH  a link into blobs/, or a copy
                            .no_exist/COMMIT/PATH  empty: known not to exist
HUB_CACHE/.locks/models--ORG--NAME/ETAG.lock       locked while the blob comes

Whatever appears under its final name is complete: it is made beside it and renamed.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from pathlib import Path

from . import environment
from .environment import hub_cache_folder
from .errors import NotCachedError
from .file import check_relative_path


class HubCache:
    """The cached files of one repository, ``NAME`` or ``ORG/NAME``.

    Raises ``ValueError`` for something that cannot be the name of a repository.
    """

    def __init__(self, name: str) -> None:
        self.folder = repository_folder(name)
        self._locks = self.folder.parent / ".locks" / self.folder.name

    # ---- looking up ----

    def commit(self, revision: str) -> str | None:
        """The commit that a branch or tag was when somebody last asked, or a commit itself if
        anything of it is cached."""
        reference = self.folder / "refs" / check_relative_path(revision, "revision")
        try:
            commit = reference.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            commit = revision
        if "/" in check_relative_path(commit, str(reference)):
            return None
        return commit if (self.folder / "snapshots" / commit).is_dir() else None

    def file(self, commit: str, path: str) -> Path | None:
        """The file at ``path`` in a commit, or None."""
        file = self.folder / "snapshots" / commit / path
        return file if file.is_file() else None

    def is_absent(self, commit: str, path: str) -> bool:
        """Whether the Hub has said that the commit has no such file."""
        return (self.folder / ".no_exist" / commit / path).is_file()

    def blob(self, etag: str) -> Path:
        """Where content with this ETag belongs."""
        return self.folder / "blobs" / etag

    def incomplete(self, etag: str) -> Path:
        """Where it is until it is complete."""
        return self.folder / "blobs" / f"{etag}.incomplete"

    # ---- writing ----

    def remember_absent(self, commit: str, path: str) -> None:
        """Notes that the commit has no such file. A cache that cannot be written stays as it is."""
        marker = self.folder / ".no_exist" / commit / path
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        except OSError:
            pass

    def remember_commit(self, revision: str, commit: str) -> None:
        """Notes which commit a branch or tag is. A cache that cannot be written stays as it is."""
        reference = self.folder / "refs" / revision
        try:
            if revision == commit or (reference.is_file() and reference.read_text() == commit):
                return
            reference.parent.mkdir(parents=True, exist_ok=True)
            new = _beside(reference)
            new.write_text(commit)
            new.replace(reference)
        except (OSError, UnicodeDecodeError):
            pass

    def complete(self, etag: str) -> None:
        """Moves the content that has come to its place, on the disk, not only in memory."""
        incomplete = self.incomplete(etag)
        with incomplete.open("rb") as file:
            os.fsync(file.fileno())
        incomplete.replace(self.blob(etag))

    def place(self, commit: str, path: str, etag: str) -> Path:
        """Gives a commit's file its name; its content is there."""
        blob = self.blob(etag)
        file = self.folder / "snapshots" / commit / path
        if file.is_file() and file.samefile(blob):
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        new = _beside(file)
        try:
            new.symlink_to(os.path.relpath(blob, file.parent))
        except OSError:
            import shutil

            _warn_about_copies(self.folder)
            shutil.copyfile(blob, new)
        new.replace(file)
        return file

    def lock(self, etag: str) -> BlobLock:
        """The lock that whoever downloads the blob holds."""
        return BlobLock(self._locks / f"{etag}.lock")


class BlobLock:
    """An advisory lock between processes, and between threads of one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def try_acquire(self) -> bool:
        """Whether this object has the lock now. Never waits."""
        if self._file >= 0:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            pass  # a file system without locks: without is better than not at all
        # Who held the lock before may have deleted the file, and others would lock a new one.
        try:
            same = os.path.samestat(os.fstat(file), os.stat(self._path))
        except FileNotFoundError:
            same = False
        if not same:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Lets go of it, if it is held."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def repository_folder(name: str) -> Path:
    """Where the cache keeps the repository ``NAME`` or ``ORG/NAME``, whether it exists or not.

    Raises ``ValueError`` for something that cannot be the name of a repository.
    """
    parts = check_relative_path(name, "name of a Hugging Face repository").split("/")
    if len(parts) > 2:
        raise ValueError(f"`{name}` is not the name of a repository, which is NAME or ORG/NAME")
    return hub_cache_folder() / "--".join(["models", *parts])


def not_cached(what: str, why: str = "") -> NotCachedError:
    """The error that says where something was looked for."""
    return NotCachedError(f"{what} is not in the local cache {hub_cache_folder()}{why}")


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody else uses."""
    return path.with_name(f"{path.name[:200]}.{os.getpid()}.{os.urandom(4).hex()}.new")


def _warn_about_copies(folder: Path) -> None:
    if not environment.symlinks_warning_is_disabled():
        warnings.warn(
            f"no symbolic links can be made in {folder}: files are copied, which takes more room; "
            "HF_HUB_DISABLE_SYMLINKS_WARNING=1 silences this",
            stacklevel=2,
        )
