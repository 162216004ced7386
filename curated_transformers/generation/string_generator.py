"""Generation on text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .config import GeneratorConfig
from .generator import Generator

STEPS_BETWEEN_UPDATES = 16

# The end of a text that later pieces may change: an incomplete UTF-8 sequence, and the beginning of
# what tokenizers rewrite when they remove spaces (" ." or " n't").
UNSETTLED = re.compile("(?:\ufffd+| (?:n'?|'[vr]?)?)\\Z")


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
        window: list[int] = []  # pieces whose text is not final, after the last final one
        shown = ""  # what has been yielded of the window's text
        text = ""
        while not session.is_done:
            for _, piece, _ in session.run(1):
                if piece < 0:
                    continue
                window.append(piece)
                (text,) = self.tokenizer.decode([window])
                settled = UNSETTLED.sub("", text)
                if len(settled) <= len(shown) or not settled.startswith(shown):
                    continue
                yield settled[len(shown) :]
                shown = settled
                if settled == text:
                    # The last piece stays as context: decoders treat the first piece of a text
                    # differently.
                    window = window[-1:]
                    (shown,) = self.tokenizer.decode([window])
                    text = shown
        if len(text) > len(shown):
            yield text[len(shown) :]


def _progress_bar(n_prompts: int) -> Any:
    from tqdm.auto import tqdm  # takes longer to import than the package

    return tqdm(total=n_prompts, unit=" prompts")
