"""Uploads: any number of files becomes one commit of a repository on the Hub.

The Hub says which files are large; those go to its storage first (the batch protocol of Git LFS),
and the commit names them by their SHA-256. Small ones are part of the commit itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import environment
from .errors import HubError, ServerError
from .hub_api import answer_error, api_url, parsed_json, request_headers
from .transport import Answer, Flow, Request, run, run_one, send

#: Seconds without a byte: storage thinks for a while after it has received a large file.
_IDLE = 120.0
#: What the Hub looks at to decide whether a file is text.
_SAMPLE_SIZE = 512
_LFS = "application/vnd.git-lfs+json"


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
    """Uploads files as one commit, and returns it. Raises a ``HubError``; then none is there."""
    if environment.is_offline():
        raise HubError(f"nothing can be uploaded to {name}: HF_HUB_OFFLINE is set")
    target = _Target(name, revision)
    large = run_one(target.large_files(additions))
    hashes = {item.path: item.sha256() for item in additions if item.path in large}
    if hashes:
        kept = [item for item in additions if item.path in hashes]
        actions = run_one(target.upload_actions(kept, hashes))
        run(target.store(item, hashes[item.path], actions.get(hashes[item.path])) for item in kept)
    return run_one(target.commit(additions, hashes))


@dataclass(frozen=True)
class _Target:
    name: str
    revision: str

    def large_files(self, additions: list[Addition]) -> Flow[set[str]]:
        """The paths that the Hub wants in its storage for large files."""
        files = []
        for item in additions:
            with item.source.open("rb") as file:
                sample = base64.b64encode(file.read(_SAMPLE_SIZE)).decode()
            files.append({"path": item.path, "sample": sample, "size": item.size})
        url = api_url(self.name, "preupload", self.revision)
        answer = yield from self._post(url, {"files": files})
        modes = {entry.get("path"): entry.get("uploadMode") for entry in _objects(answer, "files")}
        unknown = {
            item.path for item in additions if modes.get(item.path) not in ("regular", "lfs")
        }
        if unknown:
            raise ServerError(f"{answer.where}: the server does not say how to upload {unknown}")
        return {item.path for item in additions if modes[item.path] == "lfs"}

    def upload_actions(
        self, additions: list[Addition], hashes: Mapping[str, str]
    ) -> Flow[dict[str, dict[str, Any]]]:
        """SHA-256 -> what to do to store it; nothing for what is stored already."""
        url = f"{environment.endpoint()}/{quote(self.name)}.git/info/lfs/objects/batch"
        batch = {
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{"oid": hashes[item.path], "size": item.size} for item in additions],
            "hash_algo": "sha256",
            "ref": {"name": self.revision},
        }
        answer = yield from self._post(url, batch, Accept=_LFS, **{"Content-Type": _LFS})
        actions = {}
        for entry in _objects(answer, "objects"):
            if entry.get("error"):
                raise ServerError(f"{answer.where}: {str(entry['error'])[:300]}")
            actions[str(entry.get("oid"))] = entry.get("actions") or {}
        return actions

    def store(self, item: Addition, sha256: str, actions: dict[str, Any] | None) -> Flow[None]:
        """Stores one large file as the Hub's ``actions`` say."""
        if actions is None:
            raise ServerError(f"the server does not say where to store `{item.path}`")
        action = actions.get("upload")
        if action is None:
            return
        header = {str(k): str(v) for k, v in (action.get("header") or {}).items()}
        chunk_size = header.pop("chunk_size", None)
        with item.source.open("rb") as file:
            if chunk_size is None:
                whole = (file.fileno(), 0, item.size)
                yield from self._put(item, str(action["href"]), whole, header)
            else:
                yield from self._store_parts(item, sha256, action, int(chunk_size), file.fileno())
        if "verify" in actions:
            url = str(actions["verify"]["href"])
            yield from self._post(url, {"oid": sha256, "size": item.size}, Accept=_LFS)

    def _store_parts(
        self, item: Addition, sha256: str, action: dict[str, Any], chunk_size: int, file: int
    ) -> Flow[None]:
        # The header maps part numbers, as decimal texts, to URLs.
        urls = {int(k): str(v) for k, v in action["header"].items() if str(k).isdecimal()}
        parts = []
        for number in sorted(urls):
            offset = (number - 1) * chunk_size
            size = min(chunk_size, item.size - offset)
            if size <= 0:
                break
            answer = yield from self._put(item, urls[number], (file, offset, size), {})
            parts.append({"partNumber": number, "etag": answer.headers.get("etag", "")})
        if len(parts) * chunk_size < item.size:
            raise ServerError(f"the server gives too few places for the parts of `{item.path}`")
        done = {"oid": sha256, "parts": parts}
        yield from self._post(str(action["href"]), done, Accept=_LFS, **{"Content-Type": _LFS})

    def commit(self, additions: list[Addition], hashes: Mapping[str, str]) -> Flow[str]:
        """Makes the commit, and returns it."""
        what = additions[0].path if len(additions) == 1 else f"{len(additions)} files"
        lines: list[dict[str, Any]] = [
            {"key": "header", "value": {"summary": f"Upload {what}", "description": ""}}
        ]
        for item in additions:
            value: dict[str, Any] = {"path": item.path}
            if item.path in hashes:
                value.update(algo="sha256", oid=hashes[item.path], size=item.size)
                lines.append({"key": "lfsFile", "value": value})
            else:
                content = base64.b64encode(item.source.read_bytes()).decode()
                value.update(content=content, encoding="base64")
                lines.append({"key": "file", "value": value})
        # Not repeated when it fails: nobody knows whether the commit was made.
        answer = yield from self._send(
            Request(
                "POST",
                api_url(self.name, "commit", self.revision),
                request_headers(**{"Content-Type": "application/x-ndjson"}),
                body="".join(json.dumps(line) + "\n" for line in lines).encode(),
                idle_timeout=_IDLE,
            ),
            retry=False,
        )
        return str(parsed_json(answer).get("commitOid", ""))

    def _post(self, url: str, body: dict[str, Any], **more: str) -> Flow[Answer]:
        more.setdefault("Content-Type", "application/json")
        headers = request_headers(**more)
        if not url.startswith(f"{environment.endpoint()}/"):
            headers.pop("Authorization", None)
        request = Request("POST", url, headers, body=json.dumps(body).encode(), idle_timeout=_IDLE)
        return (yield from self._send(request))

    def _put(
        self, item: Addition, url: str, part: tuple[int, int, int], header: Mapping[str, str]
    ) -> Flow[Answer]:
        # The URL is the permission; the token is not for the storage's host.
        return (yield from self._send(Request("PUT", url, header, upload=part, idle_timeout=_IDLE)))

    def _send(self, request: Request, *, retry: bool = True) -> Flow[Answer]:
        answer = yield from send(request, most_tries=0 if retry else 1)
        if not answer.is_success:
            raise answer_error(answer, self.name, self.revision)
        return answer


def _objects(answer: Answer, key: str) -> list[dict[str, Any]]:
    value = parsed_json(answer).get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ServerError(f"{answer.where}: the server's answer has no list `{key}`")
    return value
