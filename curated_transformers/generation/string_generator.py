"""Generation on text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .config import GeneratorConfig
from .generator import Generator
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
        """The generated texts, in the prompts' order."""
        return self.generate_ids(self.encode(prompts), config, progress=progress)

    def encode(self, prompts: Iterable[Any]) -> list[list[int]]:
        """The prompts' piece ids."""
        ids: list[list[int]] = self.tokenizer(list(prompts)).ids
        return ids

    def generate_ids(
        self, prompts: Sequence[Any], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """The generated texts of tokenized prompts."""
        session = self.inner.start(prompts, config, config.eos_ids)
        pieces: list[list[int]] = [[] for _ in prompts]
        bar = _progress_bar(len(pieces)) if progress else None
        try:
            while not session.is_done:
                for number, piece, finish in session.run(STEPS_BETWEEN_UPDATES if progress else -1):
                    if piece >= 0:
                        pieces[number].append(piece)
                    if bar is not None:
                        bar.update(int(finish != 0))
        finally:
            if bar is not None:
                bar.close()
        texts: list[str] = self.tokenizer.decode(pieces)
        return texts

    def stream_ids(self, prompt: Sequence[int], config: GeneratorConfig) -> Iterator[str]:
        """Parts of one text as soon as they are final: never half a character."""
        session = self.inner.start([prompt], config, config.eos_ids)
        text = TextStream(self.tokenizer)
        while not session.is_done:
            for _, piece, _ in session.run(1):
                if piece >= 0 and (new := text.push(piece)):
                    yield new
        if rest := text.finish():
            yield rest


def _progress_bar(n_prompts: int) -> Any:
    from tqdm.auto import tqdm  # takes longer to import than the package

    return tqdm(total=n_prompts, unit=" prompts")
