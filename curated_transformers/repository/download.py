"""Downloads into the cache: continued where they broke off, verified, with one progress bar."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import environment
from .errors import ChecksumError, HubError
from .hub_api import FileMetadata, answer_error, file_url, request_headers
from .hub_cache import HubCache
from .progress import progress_bar
from .transport import Answer, Flow, Request, follow, retry_delay

if TYPE_CHECKING:
    from concurrent.futures import Future

#: Bytes hashed in one turn, and seconds between two looks at one that is running.
_HASH_STEP = 8 << 20
_HASH_WAIT = 0.002
#: Seconds between two looks at a lock that another process holds.
_LOCK_STEP = 0.1


@dataclass(frozen=True)
class Wanted:
    """A file to be downloaded."""

    name: str
    path: str
    metadata: FileMetadata

    @property
    def cache(self) -> HubCache:
        return HubCache(self.name)


class Progress:
    """One bar for any number of files; what they have is told as it grows."""

    def __init__(self, wanted: list[Wanted], *, quiet_below: int = 0) -> None:
        self._have = {
            (item.name, item.metadata.etag): _have(item.cache, item.metadata) for item in wanted
        }
        total = sum(item.metadata.size or 0 for item in _distinct(wanted))
        self._bar: Any = None
        if wanted and total >= quiet_below:
            title = wanted[0].path if len(wanted) == 1 else f"{len(wanted)} files"
            self._bar = progress_bar(
                f"{wanted[0].name}: {title}", total or None, sum(self._have.values())
            )

    def tell(self, item: Wanted, position: int) -> None:
        """A file has ``position`` bytes now."""
        key = (item.name, item.metadata.etag)
        if self._bar is not None:
            self._bar.update(position - self._have[key])
        self._have[key] = position

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def download(item: Wanted, progress: Progress) -> Flow[Path]:
    """The cached file, after whatever is missing of it has come.

    Raises a ``HubError``. What has come until then stays in the cache, and is where the next
    download begins.
    """
    cache, metadata = item.cache, item.metadata
    blob = cache.blob(metadata.etag)
    lock = cache.lock(metadata.etag)
    try:
        if not _is_complete(blob, metadata):
            blob.parent.mkdir(parents=True, exist_ok=True)
            while not lock.try_acquire():
                yield _LOCK_STEP
            # Whoever had the lock may have done it.
            if not _is_complete(blob, metadata):
                yield from _fetch(item, cache, progress)
        progress.tell(item, blob.stat().st_size)
        return cache.place(metadata.commit, item.path, metadata.etag)
    finally:
        lock.release()


def _fetch(item: Wanted, cache: HubCache, progress: Progress) -> Flow[None]:
    incomplete = cache.incomplete(item.metadata.etag)
    file = os.open(incomplete, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    part = _Part(file, item, progress)
    try:
        while True:
            continued = part.position > 0
            try:
                yield from _receive(part)
                yield from part.check_hash()
                cache.complete(item.metadata.etag)
                return
            except ChecksumError:
                part.clear()
                if not continued:  # what was continued may have begun as something else
                    incomplete.unlink()
                    raise
    finally:
        part.close()


def _receive(part: _Part) -> Flow[None]:
    """Requests until all bytes are there; those that get further do not count as failures."""
    size, failures, furthest = part.item.metadata.size, 0, part.position
    while size is None or part.position < size or size == 0:
        answer = yield from follow(part.request())
        part.received(answer)
        if answer.is_success and size in (None, answer.position):
            return
        if answer.position > furthest:
            failures, furthest = 0, answer.position
        failures += 1
        delay = retry_delay(answer, failures, may_help=_may_help(answer, part))
        if delay is None:
            raise _failure(answer, part.item)
        yield delay


def _may_help(answer: Answer, part: _Part) -> bool:
    """Whether to go on after an answer that would otherwise be the end."""
    if answer.refusal == "range" or (answer.code == 0 and answer.status == 416):
        part.clear()  # the server has no such part; all of it, then
        return True
    if answer.is_success:  # a part only, as from a proxy that was cut off itself
        return True
    return answer.is_idle or (part.has_grown and answer.is_unreachable)


def _failure(answer: Answer, item: Wanted) -> HubError:
    if answer.refusal == "length" or answer.is_success:
        return ChecksumError(
            f"`{item.path}` of `{item.name}` has another size than the {item.metadata.size} bytes "
            f"that the Hub announced: {answer.message or f'{answer.position} bytes came'}"
        )
    error = answer_error(answer, item.name, item.metadata.commit, item.path)
    return error.with_prefix(f"{item.cache.folder}: ") if answer.refusal == "file" else error


class _Part:
    """The part of a file that has come, and its hash, which follows behind."""

    def __init__(self, file: int, item: Wanted, progress: Progress) -> None:
        self.item = item
        self.position = os.fstat(file).st_size
        self.has_grown = False
        self._file = file
        self._progress = progress
        self._hashing = _Hashing(file)
        size = item.metadata.size
        if size is not None and self.position > size:
            self.clear()

    def close(self) -> None:
        """Closes the file."""
        self._hashing.close()
        os.close(self._file)

    def clear(self) -> None:
        """Forgets all that has come."""
        os.ftruncate(self._file, 0)
        self.position = 0
        self._hashing.restart()
        self._progress.tell(self.item, 0)

    def request(self) -> Request:
        """Asks for what is missing."""
        headers = request_headers(**{"Accept-Encoding": "identity"})
        if self.position > 0:
            headers["Range"] = f"bytes={self.position}-"
        size = self.item.metadata.size
        return Request(
            "GET",
            file_url(self.item.name, self.item.metadata.commit, self.item.path),
            headers,
            output=(self._file, self.position, -1 if size is None else size),
            idle_timeout=environment.download_timeout(),
            on_progress=lambda position, _: self._follow(position),
        )

    def received(self, answer: Answer) -> None:
        """The end of a request."""
        if answer.status == 200 and self.position > 0:
            self._hashing.restart()  # the server began anew
        self.has_grown = self.has_grown or answer.position > self.position
        self.position = answer.position
        self._progress.tell(self.item, self.position)

    def check_hash(self) -> Flow[None]:
        """Raises ``ChecksumError`` unless the file has the hash that was announced, if any was."""
        expected = self.item.metadata.sha256
        if expected is None:
            return
        while not self._hashing.advance(self.position):
            yield _HASH_WAIT
        found = self._hashing.hexdigest()
        if found != expected:
            raise ChecksumError(
                f"`{self.item.path}` of `{self.item.name}` was downloaded, but is not what the Hub "
                f"announced: its SHA-256 is {found}, not {expected}"
            )

    def _follow(self, position: int) -> None:
        self._progress.tell(self.item, position)
        if self.item.metadata.sha256 is not None:
            self._hashing.advance(position)


class _Hashing:
    """The SHA-256 of a file's beginning, made in a thread behind what arrives, a step at a time."""

    def __init__(self, file: int) -> None:
        from concurrent.futures import ThreadPoolExecutor  # takes longer than the package

        self._file = file
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")
        self._step: Future[int] | None = None
        self.restart()

    def restart(self) -> None:
        """Begins anew, after a step that runs."""
        import hashlib  # loads a large library, which is needed for nothing else

        if self._step is not None:
            self._step.exception()  # when it has ended
        self._hash, self._hashed, self._step = hashlib.sha256(), 0, None

    def advance(self, position: int) -> bool:
        """Goes on towards ``position``, without waiting. Whether it is reached."""
        if self._step is not None and self._step.done():
            self._hashed += self._step.result()
            self._step = None
        if self._step is None and self._hashed < position:
            size = min(_HASH_STEP, position - self._hashed)
            self._step = self._thread.submit(self._read, size, self._hashed)
        return self._step is None

    def hexdigest(self) -> str:
        """Of all that was asked for."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Waits for a step that runs, which reads the file."""
        self._thread.shutdown()

    def _read(self, size: int, offset: int) -> int:
        data = os.pread(self._file, size, offset)
        if not data:
            raise OSError("a file in the cache became shorter while it was downloaded")
        self._hash.update(data)
        return len(data)


def _is_complete(blob: Path, metadata: FileMetadata) -> bool:
    try:
        size = blob.stat().st_size
    except FileNotFoundError:
        return False
    return metadata.size in (None, size)


def _have(cache: HubCache, metadata: FileMetadata) -> int:
    for path in (cache.blob(metadata.etag), cache.incomplete(metadata.etag)):
        try:
            size = path.stat().st_size
        except OSError:
            continue
        return size if metadata.size is None or size <= metadata.size else 0
    return 0


def _distinct(wanted: list[Wanted]) -> list[Wanted]:
    return list({(item.name, item.metadata.etag): item for item in wanted}.values())
