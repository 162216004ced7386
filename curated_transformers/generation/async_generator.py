"""Generation for servers: many requests of asyncio programs, in one batch that runs all the time.

A thread of its own owns the session. Requests reach it through a queue and join the running batch
at the next step; what they generate goes back to the event loop that asked.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from .config import GeneratorConfig
from .default_generator import DefaultGenerator, Messages
from .python_steps import needs_python
from .text_stream import TextStream

if TYPE_CHECKING:
    import asyncio


class AsyncTextGenerator:
    """Generates texts for the tasks of asyncio programs, with one model for all of them.

    ::

        async with AsyncTextGenerator(generator) as texts:
            reply = await texts.generate("What is spaCy?", config)
            async for part in texts.stream([{"role": "user", "content": "Hello"}], config):
                ...

    Requests that run at the same time share each step of the model, and a new one joins at the next
    step. A text is what ``generator`` gives for its prompt alone, whoever else is there. A task
    that is cancelled, or leaves its stream, frees its place in the batch at the next step. An error
    is raised in the task whose request caused it. Tasks may be of several event loops.
    """

    def __init__(self, generator: DefaultGenerator) -> None:
        self.generator = generator
        self._inbox: _Inbox = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._stop: Any = None

    async def generate(
        self,
        prompt: str | Messages,
        config: GeneratorConfig,
        *,
        template_options: Mapping[str, Any] | None = None,
    ) -> str:
        """The text for one prompt, or the reply to chat messages; ``template_options`` are
        variables of the chat template. Raises ``RuntimeError`` when the generator was closed."""
        request = _Request(prompt, config, template_options, streams=False)
        async with aclosing(self._run(request)) as texts:
            return "".join([text async for text in texts])

    async def stream(
        self,
        prompt: str | Messages,
        config: GeneratorConfig,
        *,
        template_options: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[str, None]:
        """The same in parts, as soon as they are final."""
        request = _Request(prompt, config, template_options, streams=True)
        async with aclosing(self._run(request)) as texts:
            async for text in texts:
                yield text

    async def close(self) -> None:
        """Ends the thread after its current step. Requests that still run raise
        ``RuntimeError``."""
        with self._lock:  # what is in the queue by now is answered
            self._closed = True
        if self._stop is not None:
            import asyncio

            await asyncio.to_thread(self._stop)

    async def __aenter__(self) -> AsyncTextGenerator:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, request: _Request) -> AsyncGenerator[str, None]:
        self._submit(request)
        try:
            while True:
                item = await request.answers.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    return
                yield item
        finally:
            self._inbox.put(("cancel", request))  # does nothing to one that has ended

    def _submit(self, request: _Request) -> None:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._thread is None:
                # It starts with the first request, so that a program may fork before, and does not
                # know this object, so that dropping the object ends it.
                self._thread = threading.Thread(
                    target=_Worker(self.generator, self._inbox).run,
                    name=type(self).__name__,
                    daemon=True,
                )
                self._thread.start()
                self._stop = weakref.finalize(self, _end, self._inbox, self._thread)
            self._inbox.put(("add", request))


_Inbox = queue.SimpleQueue[tuple[str, "_Request | None"]]


def _end(inbox: _Inbox, thread: threading.Thread) -> None:
    inbox.put(("close", None))
    if thread is not threading.current_thread():
        thread.join()


def _closed() -> RuntimeError:
    return RuntimeError("the generator was closed")


class _Request:
    """A prompt on its way, made in the event loop that waits for it."""

    def __init__(
        self,
        prompt: str | Messages,
        config: GeneratorConfig,
        template_options: Mapping[str, Any] | None,
        *,
        streams: bool,
    ) -> None:
        import asyncio  # takes longer to import than the package

        self.prompt = prompt
        self.config = config
        self.template_options = template_options
        self.streams = streams
        #: Texts, then None or an error.
        self.answers: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        # What the thread keeps with it:
        self.ids: list[int] = []
        self.options: dict[str, Any] = {}
        self.pieces: list[int] = []
        self.n_known = 0  # pieces that will come once more, and are dropped
        self.text: TextStream | None = None

    def answer(self, item: str | BaseException | None) -> None:
        """Tells the task. One whose event loop has ended does not wait any more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.answers.put_nowait, item)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody can wait for it."""
        return self._loop.is_closed()


class _Worker:
    """What the thread does: take requests, run a step, tell what came of it."""

    def __init__(self, generator: DefaultGenerator, inbox: _Inbox) -> None:
        self._generator = generator
        self._tokenizer = generator.generator.tokenizer
        self._pieces = generator.generator.inner
        self._inbox = inbox
        self._session = self._pieces.new_session()
        self._waiting: deque[_Request] = deque()
        self._running: dict[int, _Request] = {}
        #: One of these made a step fail; they run one by one until that is found.
        self._suspects: set[_Request] = set()

    def run(self) -> None:
        while self._take_messages():
            self._fill()
            if self._running:
                self._step()

    # Messages.

    def _take_messages(self) -> bool:
        """Waits for one if there is nothing else to do. False: the end."""
        while True:
            idle = not self._running and not self._waiting
            try:
                kind, request = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if request is None:
                for open_request in (*self._running.values(), *self._waiting):
                    open_request.answer(_closed())
                return False
            if kind == "add":
                self._prepare(request)
            else:
                self._cancel(request)

    def _prepare(self, request: _Request) -> None:
        generator = self._generator
        try:
            config = generator.complete(request.config)
            request.ids = generator.encode(request.prompt, request.template_options)
            if config.num_return_sequences != 1 or needs_python(config):
                raise ValueError(
                    "requests that share a batch take neither num_return_sequences nor "
                    "logits_processor and stop_when"
                )
            request.options = self._pieces.session_options(config)
        except Exception as error:
            request.answer(error)
        else:
            stops = config.stop_strings
            if request.streams or stops:
                request.text = TextStream(self._tokenizer, stops)
            self._waiting.append(request)

    def _cancel(self, request: _Request) -> None:
        self._suspects.discard(request)
        for number, one in self._running.items():
            if one is request:
                self._session.cancel(number)
                del self._running[number]
                return
        if request in self._waiting:
            self._waiting.remove(request)

    # Steps.

    def _fill(self) -> None:
        while self._waiting and not (self._suspects and self._running):
            request = self._waiting.popleft()
            try:
                self._running[self._session.add(request.ids, **request.options)] = request
            except Exception as error:
                self._fail(request, error)

    def _step(self) -> None:
        try:
            events = self._session.run(1)
        except Exception as error:
            self._failed(error)
            return
        for number, piece, reason in events:
            request = self._running.get(number)
            if request is None:
                continue
            try:
                finish = self._take_piece(request, piece, bool(reason))
            except Exception as error:
                self._session.cancel(number)
                self._fail(request, error)
                finish = True
            if finish or request.is_abandoned:
                self._session.cancel(number)
                self._suspects.discard(request)
                del self._running[number]

    def _take_piece(self, request: _Request, piece: int, is_last: bool) -> bool:
        """Whether the text has ended, also by a stop string."""
        if piece >= 0 and request.n_known > 0:
            request.n_known -= 1
        elif piece >= 0:
            request.pieces.append(piece)
            if request.text is not None and (new := request.text.push(piece)):
                request.answer(new)
        if not is_last and not (request.text is not None and request.text.is_stopped):
            return False
        if request.text is None:
            request.answer(self._tokenizer.decode([request.pieces])[0])
        elif rest := request.text.finish():
            request.answer(rest)
        request.answer(None)
        return True

    def _fail(self, request: _Request, error: Exception) -> None:
        self._suspects.discard(request)
        request.answer(error)

    def _failed(self, error: Exception) -> None:
        """A step fails as a whole. One request alone is its cause; of several each runs again, by
        itself, which with its seed gives the same pieces."""
        requests = list(self._running.values())
        for number in self._running:
            self._session.cancel(number)
        self._running.clear()
        if len(requests) == 1:
            self._fail(requests[0], error)
            return
        for request in reversed(requests):
            request.n_known = len(request.pieces)
            self._waiting.appendleft(request)
        self._suspects.update(requests)
