"""The layout of the Hugging Face cache on this machine; files are only looked up here.

HUB_CACHE/models--ORG--NAME/refs/REVISION          one line, the commit
                            snapshots/COMMIT/PATH  the file, mostly a link into blobs/
"""

from __future__ import annotations

from pathlib import Path

from .environment import hub_cache_folder
from .file import check_relative_path


class NotCachedError(FileNotFoundError):
    """A file or repository is not in the local cache, and nothing downloads it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is not in the local cache {hub_cache_folder()}, and downloading is not "
            "available yet; fetch it with another program (`hf download NAME`), or load a folder "
            "with from_path"
        )


def repository_folder(name: str) -> Path:
    """Where the cache keeps the repository ``NAME`` or ``ORG/NAME``, whether it exists or not.

    Raises ``ValueError`` for something that cannot be the name of a repository.
    """
    parts = check_relative_path(name, "name of a Hugging Face repository").split("/")
    if len(parts) > 2:
        raise ValueError(f"`{name}` is not the name of a repository, which is NAME or ORG/NAME")
    return hub_cache_folder() / "--".join(["models", *parts])


def cached_snapshot(name: str, revision: str = "main") -> Path:
    """The folder with the cached files of ``name`` at a branch, tag or commit.

    Raises ``ValueError`` for an invalid name or revision, ``NotCachedError`` when there is none.
    """
    folder = repository_folder(name)
    check_relative_path(revision, f"revision of {name}")
    reference = folder / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / check_relative_path(commit, str(reference))
    if "/" in commit or not snapshot.is_dir():
        raise NotCachedError(f"{name} (revision: {revision})")
    return snapshot


def cached_file(name: str, revision: str, path: str) -> Path | None:
    """The cached file at ``path``, or None. Raises ``ValueError`` for invalid arguments."""
    check_relative_path(path, name)
    try:
        file = cached_snapshot(name, revision) / path
    except NotCachedError:
        return None
    return file if file.is_file() else None
