"""Requests, and what runs several of them at once.

Work that needs the network is written as a flow: a generator that yields a `Request` and is sent
its `Answer`, or yields a number of seconds to wait. `run` drives many flows together, over
connections that stay open, and stops all of them when one fails or Ctrl-C is pressed.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urljoin, urlsplit

from . import environment
from .errors import NetworkError, ServerError

T = TypeVar("T")

#: Files that are transferred at once.
CONCURRENT = 8
#: Seconds between two looks at what the flows do.
TURN = 0.1
#: Tries of a request that gets nowhere, and the seconds before the second; each later wait doubles.
TRIES = 6
FIRST_DELAY = 1.0
LONGEST_DELAY = 8.0
#: Seconds for which a server may make us wait; the Hub counts requests in windows of five minutes.
LONGEST_RETRY_AFTER = 300.0
REDIRECTS = 10

#: Statuses that may be different the next time.
_LATER = (408, 429, 500, 502, 503, 504)
#: libcurl's code for a set-up that failed.
_FAILED_INIT = 2
#: ... for names and hosts that cannot be reached.
_UNREACHABLE = (5, 6, 7)
_TIMEOUT = 28
#: ... for connections that broke: partial file, nothing received, send, receive, HTTP/2 frames.
_BROKEN = (16, 18, 52, 55, 56, 92)
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Request:
    """One request. Header values may be secrets, so that they do not show in its repr."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    #: descriptor, offset, size
    upload: tuple[int, int, int] | None = None
    #: descriptor, what the file holds already, how long it may become
    output: tuple[int, int, int] | None = None
    total_timeout: float = 0
    idle_timeout: float = 0
    #: whether sending it twice does what sending it once does
    is_repeatable: bool = True
    #: is told now and then where the file ends, and how many bytes were sent
    on_progress: Callable[[int, int], None] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """What came back: an HTTP answer, or the reason why there is none."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    code: int
    refusal: str
    errno: int
    message: str
    position: int

    @property
    def is_success(self) -> bool:
        return self.code == 0 and 200 <= self.status < 300

    @property
    def is_unreachable(self) -> bool:
        return self.code in _UNREACHABLE or (self.code == _TIMEOUT and self.status == 0)

    @property
    def is_idle(self) -> bool:
        """The answer had begun, and then no byte came for too long."""
        return self.code == _TIMEOUT and self.status != 0

    @property
    def where(self) -> str:
        """The URL without its query, which may be a key to private files."""
        return self.url.partition("?")[0]


Flow = Generator["Request | float", "Answer | None", T]
IsFinal = Callable[[Answer, bool], bool]


def exchange(request: Request) -> Flow[Answer]:
    """The answer to one request, whatever it says."""
    answer = yield request
    assert answer is not None
    return answer


def send(request: Request, *, is_final: IsFinal | None = None, most_tries: int = 0) -> Flow[Answer]:
    """The answer after redirects, and after retries where those may help.

    ``is_final`` as for ``follow``. ``most_tries``: 0 for the usual.
    """
    tries = 1
    while True:
        answer = yield from follow(request, is_final=is_final)
        delay = retry_delay(answer, tries, most_tries if request.is_repeatable else 1)
        if delay is None:
            return answer
        yield delay
        tries += 1


def follow(request: Request, *, is_final: IsFinal | None = None) -> Flow[Answer]:
    """The answer after redirects. The token stays with the host that it was meant for.

    ``is_final`` is asked whether a redirect is the answer itself, and told whether it leads to
    another host.
    """
    for _ in range(REDIRECTS):
        answer = yield from exchange(request)
        target = answer.headers.get("location")
        if answer.code != 0 or answer.status not in _REDIRECTS or target is None:
            return answer
        url = _redirected(request.url, target)
        leaves_host = _origin(url) != _origin(request.url)
        if is_final is not None and is_final(answer, leaves_host):
            return answer
        if leaves_host:
            kept = {k: v for k, v in request.headers.items() if k.lower() != "authorization"}
            request = replace(request, headers=kept)
        request = replace(request, url=url)
    raise ServerError(f"{answer.where} leads to more than {REDIRECTS} redirects")


def retry_delay(
    answer: Answer, tries: int, most_tries: int = 0, *, may_help: bool = False
) -> float | None:
    """Seconds after which to try again, or None when that is no use.

    ``tries``: how many were made without getting any further. ``may_help``: the caller thinks so,
    whatever the answer is.
    """
    may_help = may_help or answer.code in _BROKEN or (answer.code == 0 and answer.status in _LATER)
    if not may_help or tries >= (most_tries or TRIES):
        return None
    asked = retry_after(answer.headers.get("retry-after")) if answer.code == 0 else None
    if asked is not None:
        return asked if asked <= LONGEST_RETRY_AFTER else None
    return min(FIRST_DELAY * 2.0 ** (tries - 1), LONGEST_DELAY)


def retry_after(value: str | None) -> float | None:
    """The seconds that a ``Retry-After`` header asks for, which may be a date."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return float(value)
    from email.utils import parsedate_to_datetime  # not needed otherwise

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def network_error(answer: Answer) -> NetworkError:
    """The error that an answer which is none stands for."""
    return NetworkError(f"cannot reach {answer.where}: {answer.message}")


def run(flows: Iterable[Flow[T]]) -> list[T]:
    """Runs flows to their ends, several at once, and returns their results in order.

    The first error, or Ctrl-C, ends all of them and is raised.
    """
    scheduler = _Scheduler(flows)
    try:
        scheduler.run()
    finally:
        scheduler.stop()
    return [result for _, result in sorted(scheduler.results.items())]


def run_one(flow: Flow[T]) -> T:
    """The result of one flow."""
    return run([flow])[0]


class _Scheduler(Generic[T]):
    def __init__(self, flows: Iterable[Flow[T]]) -> None:
        self.results: dict[int, T] = {}
        self._pool: Any = None  # made when the first request needs it
        self._new = deque(enumerate(flows))
        self._paused: list[tuple[float, int, Flow[T]]] = []
        self._active: dict[int, tuple[Request, int, Flow[T]]] = {}

    def run(self) -> None:
        while self._new or self._paused or self._active:
            while self._new and len(self._paused) + len(self._active) < CONCURRENT:
                index, flow = self._new.popleft()
                self._advance(index, flow, None)
            self._wake()
            if not self._active:
                time.sleep(self._turn())
                continue
            for number, *rest in self._pool.run(self._turn()):
                request, index, flow = self._active.pop(number)
                self._advance(index, flow, _answer(request, rest))
            self._tell_progress()

    def stop(self) -> None:
        """Ends what is left; the flows release what they hold."""
        for number in self._active:
            self._pool.cancel(number)
        for _, _, flow in (*self._paused, *self._active.values()):
            flow.close()
        for _, flow in self._new:
            flow.close()

    def _advance(self, index: int, flow: Flow[T], answer: Answer | None) -> None:
        try:
            wanted = flow.send(answer)
        except StopIteration as end:
            self.results[index] = end.value
            return
        if not isinstance(wanted, Request):
            self._paused.append((time.monotonic() + wanted, index, flow))
            return
        try:
            self._pool = self._pool or _pool()
        except OSError as error:  # no libcurl: as good as no network
            self._advance(index, flow, _no_answer(wanted, str(error)))
            return
        self._active[_start(self._pool, wanted)] = (wanted, index, flow)

    def _wake(self) -> None:
        now = time.monotonic()
        ready = [item for item in self._paused if item[0] <= now]
        self._paused = [item for item in self._paused if item[0] > now]
        while ready:
            _, index, flow = ready.pop(0)
            try:
                self._advance(index, flow, None)
            except BaseException:
                self._paused += ready  # so that stop() sees them
                raise

    def _turn(self) -> float:
        if not self._paused:
            return TURN if self._active else 0.0
        first = min(until for until, _, _ in self._paused)
        return min(max(first - time.monotonic(), 0.0), TURN)

    def _tell_progress(self) -> None:
        for number, (request, _, _) in self._active.items():
            if request.on_progress is not None:
                request.on_progress(*self._pool.progress(number))


# ---- the pool of connections ----

_threads = threading.local()


def _pool() -> Any:
    """This thread's pool. A forked child makes its own: connections cannot be shared."""
    from .._core import TransferPool

    owner = os.getpid()
    if getattr(_threads, "owner", None) != owner:
        _threads.pool = TransferPool()
        _threads.builtin_ca = _threads.pool.ca_file
        _threads.owner = owner
    return _threads.pool


def _start(pool: Any, request: Request) -> int:
    number: int = pool.add(
        request.method,
        request.url,
        tuple(f"{name}: {value}" for name, value in request.headers.items()),
        body=request.body,
        upload=request.upload,
        output=request.output,
        fresh_connection=not request.is_repeatable,
        connect_timeout=environment.metadata_timeout(),
        total_timeout=request.total_timeout,
        idle_timeout=request.idle_timeout,
        ca_file=environment.ca_file(_threads.builtin_ca),
    )
    return number


def _answer(request: Request, rest: list[Any]) -> Answer:
    status, code, refusal, errno, message, header, body, position = rest
    return Answer(
        url=request.url,
        status=status,
        headers=_parsed_header(header.decode("latin-1")),
        body=body,
        code=code,
        refusal=refusal,
        errno=errno,
        message=message.decode("utf-8", "replace"),
        position=position,
    )


def _no_answer(request: Request, message: str) -> Answer:
    return Answer(request.url, 0, {}, b"", _FAILED_INIT, "", 0, message, 0)


def _parsed_header(text: str) -> dict[str, str]:
    """Names in lower case. Lines that are no headers are left out."""
    headers = {}
    for line in text.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


# ---- where a redirect leads ----


def _redirected(url: str, target: str) -> str:
    try:
        new = urljoin(url, target)
        scheme, host, _ = _origin(new)
    except ValueError:
        scheme, host = "", None
    if not host or scheme not in ("http", "https") or (scheme == "http" and _is_https(url)):
        raise ServerError(
            f"{url.partition('?')[0]} redirects to `{target.partition('?')[0][:200]}`, which is "
            "not followed: it must be a valid URL with https"
        )
    return new


def _is_https(url: str) -> bool:
    return url.lower().startswith("https:")


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
