"""A generator for any causal language model: prompts or chat messages in, text out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..models.module import CausalLMModule
from .config import GeneratorConfig, SampleGeneratorConfig
from .generator import Generator
from .string_generator import StringGenerator

Messages = Sequence[Mapping[str, str]]


class DefaultGenerator:
    """Wraps a tokenizer and a model.

    ``default_config`` supplies ``eos_id`` and ``max_generated_pieces`` where a call's configuration
    has None for them, and nothing else: how pieces are chosen (temperature, top-k, top-p) and which
    are masked is what the call's configuration says. Without a default configuration it is the
    tokenizer's end-of-sequence piece and 200 pieces.
    """

    def __init__(
        self,
        tokenizer: Any,
        causal_lm: CausalLMModule[Any],
        default_config: GeneratorConfig | None = None,
    ) -> None:
        self.generator = StringGenerator(tokenizer, Generator(causal_lm))
        if default_config is None:
            eos = tokenizer.eos_piece
            default_config = SampleGeneratorConfig(
                max_generated_pieces=200,
                eos_id=tokenizer.piece_to_id(eos) if eos is not None else None,
            )
        self.default_config = default_config

    def __call__(
        self, prompts: Sequence[str], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """See :meth:`generate`."""
        return self.generate(prompts, config, progress=progress)

    def generate(
        self, prompts: Sequence[str], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """The generated texts, in the prompts' order; ``progress`` shows a bar of finished
        prompts."""
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list of strings; put a single prompt into a list")
        return self.generator.generate(
            self.preprocess_prompts(prompts), self._complete(config), progress=progress
        )

    def stream(self, prompt: str | Messages, config: GeneratorConfig) -> Iterator[str]:
        """Yields the text of one prompt, or of the reply to chat messages, as it is generated."""
        ids = (
            self.generator.encode(self.preprocess_prompts([prompt]))[0]
            if isinstance(prompt, str)
            else self._encode_chat(prompt)
        )
        return self.generator.stream_ids(ids, self._complete(config))

    def chat(self, messages: Messages, config: GeneratorConfig) -> str:
        """The reply to ``messages``, dictionaries with ``role`` and ``content``, by the model's
        chat template."""
        (reply,) = self.generator.generate_ids(
            [self._encode_chat(messages)], self._complete(config)
        )
        return reply

    def preprocess_prompts(self, prompts: Sequence[str]) -> list[Any]:
        """What the tokenizer gets for each prompt; subclasses put their template here."""
        return list(prompts)

    def _encode_chat(self, messages: Messages) -> list[int]:
        ids: list[int] = self.generator.tokenizer.encode_chat(messages).ids[0]
        return ids

    def _complete(self, config: GeneratorConfig) -> GeneratorConfig:
        fields = ("eos_id", "max_generated_pieces")
        missing = {
            name: getattr(self.default_config, name)
            for name in fields
            if getattr(config, name) is None
        }
        return dataclasses.replace(config, **missing)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.generator.inner.model!r})"
