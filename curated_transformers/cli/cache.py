"""``cache``: the repositories in the local cache, their sizes and commits. Nothing is changed."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..repository.environment import hub_cache_folder
from .text import bytes_text, counted, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> None:
    folder = hub_cache_folder()
    repositories = cached_repositories(folder)
    rows = [("MODEL", "SIZE", "REVISION", "COMMIT")]
    for repository in repositories:
        first, *others = repository.revisions or [("", "")]
        rows.append((repository.name, bytes_text(repository.size), *first))
        rows += [("", "", *other) for other in others]
    if repositories:
        print(table(rows))
    total = bytes_text(sum(repository.size for repository in repositories))
    print(f"{counted(len(repositories), 'model')}, {total}, in {folder}")


@dataclass(frozen=True)
class CachedRepository:
    """A repository in the cache: bytes on the disk, and pairs of revision and commit; a commit that
    no branch or tag names has an empty revision."""

    name: str
    size: int
    revisions: list[tuple[str, str]]


def cached_repositories(folder: Path) -> list[CachedRepository]:
    """The models in a cache, sorted by name. A cache that does not exist has none."""
    found = [path for path in folder.glob("models--*") if path.is_dir()]
    return sorted((_repository(path) for path in found), key=lambda repository: repository.name)


def _repository(folder: Path) -> CachedRepository:
    contents = (path for part in ("blobs", "snapshots") for path in (folder / part).rglob("*"))
    files = [path for path in contents if path.is_file() and not path.is_symlink()]
    references = folder / "refs"
    named = [
        (str(path.relative_to(references)), path.read_text(encoding="utf-8", errors="replace"))
        for path in sorted(references.rglob("*"))
        if path.is_file()
    ]
    commits = {path.name for path in folder.glob("snapshots/*")}
    others = commits - {commit for _, commit in named}
    return CachedRepository(
        folder.name.removeprefix("models--").replace("--", "/", 1),
        sum(path.stat().st_size for path in files),
        [*named, *(("", commit) for commit in sorted(others))],
    )
