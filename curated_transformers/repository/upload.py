"""Uploads: any number of files becomes one commit of a repository on the Hub.

The Hub says which files are large; those go to its storage first, and the commit names them by
their SHA-256. Small ones are part of the commit itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import environment
from .errors import HubError, ServerError
from .hub_api import UPLOAD_IDLE, Target, api_url, listed_objects, parsed_json, request_headers
from .lfs import LargeFile, Tell, places, store
from .progress import progress_bar
from .transport import Flow, Request, run, run_one

#: What the Hub looks at to decide whether a file is text.
_SAMPLE_SIZE = 512


@dataclass(frozen=True)
class Addition:
    """A file to be uploaded: its path in the repository, and where its content lies."""

    path: str
    source: Path

    @property
    def size(self) -> int:
        return self.source.stat().st_size

    def sha256(self) -> str:
        """The hash of the content, in hex."""
        digest = hashlib.sha256()
        with self.source.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
        return digest.hexdigest()


def upload(name: str, revision: str, additions: list[Addition]) -> str:
    """Uploads files as one commit, and returns it. Raises a ``HubError``; then there is none."""
    if environment.is_offline():
        raise HubError(f"nothing can be uploaded to {name}: HF_HUB_OFFLINE is set")
    target = Target(name, revision)
    paths = run_one(_large_paths(target, additions))
    large = {
        item.path: LargeFile(item.source, item.sha256(), item.size)
        for item in additions
        if item.path in paths
    }
    if large:
        found = run_one(places(target, large.values()))
        by_hash = {file.sha256: file for file in large.values()}
        progress = _Progress(name, [by_hash[oid].size for oid, place in found.items() if place])
        try:
            run(
                store(target, by_hash[oid], place, progress.of_file())
                for oid, place in found.items()
                if place is not None
            )
        finally:
            progress.close()
    return run_one(_commit(target, additions, large))


class _Progress:
    """One bar for all large files; what is sent again is not counted twice."""

    def __init__(self, name: str, sizes: list[int]) -> None:
        files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
        self._bar = progress_bar(f"{name}: upload of {files}", sum(sizes)) if sizes else None

    def of_file(self) -> Tell:
        """What is told how many bytes of a file have been sent."""
        sent = 0

        def tell(position: int) -> None:
            nonlocal sent
            if self._bar is not None:
                self._bar.update(position - sent)
            sent = position

        return tell

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _large_paths(target: Target, additions: list[Addition]) -> Flow[set[str]]:
    """The paths that the Hub wants in its storage for large files."""
    files = []
    for item in additions:
        with item.source.open("rb") as file:
            sample = base64.b64encode(file.read(_SAMPLE_SIZE)).decode()
        files.append({"path": item.path, "sample": sample, "size": item.size})
    url = api_url(target.name, "preupload", target.revision)
    answer = yield from target.post(url, {"files": files}, {"Content-Type": "application/json"})
    modes = {
        entry.get("path"): entry.get("uploadMode") for entry in listed_objects(answer, "files")
    }
    for item in additions:
        if modes.get(item.path) not in ("regular", "lfs"):
            raise ServerError(f"{answer.where}: the server does not say how to upload {item.path}")
    return {item.path for item in additions if modes[item.path] == "lfs"}


def _commit(target: Target, additions: list[Addition], large: Mapping[str, LargeFile]) -> Flow[str]:
    what = additions[0].path if len(additions) == 1 else f"{len(additions)} files"
    lines: list[dict[str, Any]] = [
        {"key": "header", "value": {"summary": f"Upload {what}", "description": ""}}
    ]
    for item in additions:
        value: dict[str, Any] = {"path": item.path}
        if item.path in large:
            file = large[item.path]
            value.update(algo="sha256", oid=file.sha256, size=file.size)
            lines.append({"key": "lfsFile", "value": value})
        else:
            content = base64.b64encode(item.source.read_bytes()).decode()
            value.update(content=content, encoding="base64")
            lines.append({"key": "file", "value": value})
    # Never repeated: when the answer is lost, nobody knows whether the commit was made.
    answer = yield from target.ask(
        Request(
            "POST",
            api_url(target.name, "commit", target.revision),
            request_headers(**{"Content-Type": "application/x-ndjson"}),
            body="".join(json.dumps(line) + "\n" for line in lines).encode(),
            idle_timeout=UPLOAD_IDLE,
            is_repeatable=False,
        )
    )
    return str(parsed_json(answer).get("commitOid", ""))
