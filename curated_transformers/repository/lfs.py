"""Large files go to the Hub's storage, by the batch protocol of Git LFS: whole, or in parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import environment
from .errors import ServerError
from .hub_api import UPLOAD_IDLE, Target, listed_objects
from .transport import Answer, Flow, Request

#: Is told how many bytes of a file have been sent.
Tell = Callable[[int], None]

_LFS = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}


@dataclass(frozen=True)
class LargeFile:
    """Content to be stored."""

    source: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Place:
    """Where the Hub wants content: the URL and headers for all of it, or the URLs of its parts and
    the one that is told when they are there. ``verify`` is told of either."""

    url: str
    header: Mapping[str, str]
    parts: tuple[str, ...]
    part_size: int
    verify: str | None


def places(target: Target, files: Collection[LargeFile]) -> Flow[dict[str, Place | None]]:
    """SHA-256 -> where to store the content; None: the Hub has it already."""
    url = f"{environment.endpoint()}/{quote(target.name)}.git/info/lfs/objects/batch"
    batch = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": file.sha256, "size": file.size} for file in files],
        "hash_algo": "sha256",
        "ref": {"name": target.revision},
    }
    answer = yield from target.post(url, batch, _LFS)
    found: dict[str, Place | None] = {}
    for entry in listed_objects(answer, "objects"):
        if entry.get("error"):
            raise ServerError(f"{answer.where}: {str(entry['error'])[:300]}")
        try:
            found[str(entry.get("oid"))] = _parsed(entry.get("actions") or {})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ServerError(f"{answer.where}: it is not clear where to store a file") from None
    missing = [file.sha256 for file in files if file.sha256 not in found]
    if missing:
        raise ServerError(f"{answer.where}: the server does not say where to store {missing[0]}")
    return found


def store(target: Target, file: LargeFile, place: Place, tell: Tell) -> Flow[None]:
    """Stores content at its place; ``tell`` hears now and then how much of it has been sent."""
    with file.source.open("rb") as stream:
        if not place.parts:
            region = (stream.fileno(), 0, file.size)
            yield from _put(target, place.url, region, place.header, tell)
        else:
            yield from _store_parts(target, file, place, stream.fileno(), tell)
    if place.verify is not None:
        yield from target.post(place.verify, {"oid": file.sha256, "size": file.size}, _LFS)


def _store_parts(
    target: Target, file: LargeFile, place: Place, descriptor: int, tell: Tell
) -> Flow[None]:
    starts = range(0, file.size, place.part_size)
    if len(starts) != len(place.parts):
        raise ServerError(
            f"the server has {len(place.parts)} places for the {len(starts)} parts of a file"
        )
    parts = []
    for number, (start, url) in enumerate(zip(starts, place.parts, strict=True), 1):
        region = (descriptor, start, min(place.part_size, file.size - start))
        answer = yield from _put(target, url, region, {}, tell)
        parts.append({"partNumber": number, "etag": answer.headers.get("etag", "")})
    yield from target.post(place.url, {"oid": file.sha256, "parts": parts}, _LFS)


def _put(
    target: Target, url: str, region: tuple[int, int, int], header: Mapping[str, str], tell: Tell
) -> Flow[Answer]:
    # The URL is the permission: the token is not for the storage.
    _, start, size = region
    answer = yield from target.ask(
        Request(
            "PUT",
            url,
            header,
            upload=region,
            idle_timeout=UPLOAD_IDLE,
            on_progress=lambda _, sent: tell(start + sent),
        )
    )
    tell(start + size)
    return answer


def _parsed(actions: Mapping[str, Any]) -> Place | None:
    """Raises one of several errors where the server does not follow the protocol."""
    upload = actions.get("upload")
    if upload is None:
        return None
    header = {str(name): str(value) for name, value in (upload.get("header") or {}).items()}
    part_size = header.pop("chunk_size", None)
    parts: tuple[str, ...] = ()
    if part_size is not None:
        urls = {int(name): url for name, url in header.items() if name.isdecimal()}
        parts = tuple(_checked_url(urls[number]) for number in range(1, len(urls) + 1))
        if not parts or int(part_size) < 1:
            raise ValueError
    if not all(text.isprintable() for pair in header.items() for text in pair):
        raise ValueError
    verify = actions.get("verify")
    return Place(
        url=_checked_url(upload["href"]),
        header=header,
        parts=parts,
        part_size=int(part_size or 0),
        verify=None if verify is None else _checked_url(verify["href"]),
    )


def _checked_url(url: Any) -> str:
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError
    return url
