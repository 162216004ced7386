"""Generation on text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import _core
from .config import GeneratorConfig
from .generation import FINISH_REASONS, Generation
from .generator import Generator
from .python_steps import FINISH_STOP
from .text_stream import TextStream

STEPS_BETWEEN_UPDATES = 16


class StringGenerator:
    """A tokenizer before and behind a generator."""

    def __init__(self, tokenizer: Any, generator: Generator) -> None:
        self.tokenizer = tokenizer
        self.inner = generator

    def __call__(self, prompts: Iterable[Any], config: GeneratorConfig) -> list[str]:
        """See :meth:`generate`."""
        return self.generate(prompts, config)

    def generate(
        self, prompts: Iterable[Any], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """The generated texts, in the prompts' order; several for one prompt stand side by side."""
        return self.generate_ids(self.encode(prompts), config, progress=progress)

    def encode(self, prompts: Iterable[Any]) -> list[list[int]]:
        """The prompts' piece ids."""
        ids: list[list[int]] = self.tokenizer(list(prompts)).ids
        return ids

    def generate_detailed(
        self, prompts: Iterable[Any], config: GeneratorConfig, *, progress: bool = False
    ) -> list[Generation]:
        """As :meth:`generate`, with what else is known of the texts."""
        return self.generate_ids_detailed(self.encode(prompts), config, progress=progress)

    def generate_ids(
        self, prompts: Sequence[Any], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """The generated texts of tokenized prompts."""
        generations = self.generate_ids_detailed(prompts, config, progress=progress)
        return [generation.text for generation in generations]

    def generate_ids_detailed(
        self, prompts: Sequence[Any], config: GeneratorConfig, *, progress: bool = False
    ) -> list[Generation]:
        """As :meth:`generate_ids`, with what else is known of the texts."""
        session = self.inner.start(prompts, config)
        n = len(prompts) * config.num_return_sequences
        texts = [_Text(self.tokenizer, config) for _ in range(n)]
        steps = 1 if config.stop_strings else STEPS_BETWEEN_UPDATES if progress else -1
        bar = _progress_bar(n) if progress else None
        try:
            while not session.is_done:
                for event in session.run(steps):
                    text = texts[event[0]]
                    text.take(event)
                    if text.is_stopped:
                        session.cancel(event[0])
                    if bar is not None:
                        bar.update(int(text.finish != _core.FINISH_NONE))
        finally:
            if bar is not None:
                bar.close()
        return self._generations(texts, config)

    def _generations(self, texts: list[_Text], config: GeneratorConfig) -> list[Generation]:
        if config.stop_strings:
            decoded = [text.joined() for text in texts]
        else:
            decoded = self.tokenizer.decode([text.pieces for text in texts])
        has_logprobs = config.logprobs is not None
        return [
            Generation(
                string,
                text.pieces,
                FINISH_REASONS[text.finish],
                text.logprobs if has_logprobs else None,
                text.top_logprobs if has_logprobs else None,
            )
            for string, text in zip(decoded, texts, strict=True)
        ]

    def stream_ids(self, prompt: Sequence[int], config: GeneratorConfig) -> Iterator[str]:
        """Parts of one text as soon as they are final: never half a character, nor a part of a stop
        string."""
        if config.num_return_sequences != 1:
            raise ValueError("a stream is of one text, num_return_sequences must be 1")
        session = self.inner.start([prompt], config)
        text = TextStream(self.tokenizer, config.stop_strings)
        while not session.is_done:
            for number, piece, _ in session.run(1):
                if piece >= 0 and (new := text.push(piece)):
                    yield new
                if text.is_stopped:
                    session.cancel(number)
        if rest := text.finish():
            yield rest


class _Text:
    """What has come of one sequence."""

    def __init__(self, tokenizer: Any, config: GeneratorConfig) -> None:
        self.pieces: list[int] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[list[tuple[int, float]]] = []
        self.finish = _core.FINISH_NONE
        self._has_logprobs = config.logprobs is not None
        stops = config.stop_strings
        self._stream = TextStream(tokenizer, stops) if stops else None
        self._parts: list[str] = []

    def take(self, event: _core.Event) -> None:
        _, piece, self.finish = event
        if piece < 0:
            return
        self.pieces.append(piece)
        if self._has_logprobs:
            assert event.logprob is not None
            self.logprobs.append(event.logprob)
            self.top_logprobs.append(list(event.top))
        if self._stream is not None:
            self._parts.append(self._stream.push(piece))
            if self._stream.is_stopped:
                self.finish = FINISH_STOP

    @property
    def is_stopped(self) -> bool:
        return self._stream is not None and self._stream.is_stopped

    def joined(self) -> str:
        """The text before the stop string that came in it."""
        assert self._stream is not None
        self._parts.append(self._stream.finish())
        if self._stream.is_stopped:
            self.finish = FINISH_STOP
        return "".join(self._parts)


def _progress_bar(n_prompts: int) -> Any:
    from tqdm.auto import tqdm  # takes longer to import than the package

    return tqdm(total=n_prompts, unit=" prompts")
