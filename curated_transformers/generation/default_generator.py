"""A generator for any causal language model: prompts or chat messages in, text out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar

from ..checkpoint import GGUFFile, is_gguf
from ..models.auto_model import AutoCausalLM
from ..models.module import CausalLMModule
from ..repository import LocalRepository, Repository
from ..tokenizers import AutoTokenizer, Tokenizer, TokenizerBase
from ..tokenizers.chat import check_messages
from .config import GeneratorConfig, SampleGeneratorConfig, check_kind
from .end_pieces import end_ids_of_gguf, end_ids_of_repo
from .generation import Generation
from .generator import Generator
from .generator_wrapper import GeneratorWrapper
from .hf_hub import FromHF
from .string_generator import StringGenerator

Messages = Sequence[Mapping[str, Any]]
Self = TypeVar("Self", bound="DefaultGenerator")


class DefaultGenerator(GeneratorWrapper, FromHF):
    """Wraps a tokenizer and a model.

    ``default_config`` supplies ``eos_id`` and ``max_generated_pieces`` where a call's configuration
    has None for them, and nothing else: how pieces are chosen (temperature, top-k, top-p) and which
    are masked is what the call's configuration says. Without a default configuration it is the
    tokenizer's end-of-sequence piece and 200 pieces, and ``end_ids`` end a text as well: those
    that the model's repository names, as chat models do. ``max_batch_tokens`` and
    ``max_cache_tokens`` are those of :class:`Generator`.
    """

    def __init__(
        self,
        tokenizer: TokenizerBase,
        causal_lm: CausalLMModule[Any],
        default_config: GeneratorConfig | None = None,
        *,
        max_batch_tokens: int = 0,
        max_cache_tokens: int = 0,
    ) -> None:
        inner = Generator(
            causal_lm, max_batch_tokens=max_batch_tokens, max_cache_tokens=max_cache_tokens
        )
        self.generator = StringGenerator(tokenizer, inner)
        self.end_ids: frozenset[int] = frozenset()
        self._takes_end_ids = default_config is None
        if default_config is None:
            eos = tokenizer.eos_piece
            default_config = SampleGeneratorConfig(
                max_generated_pieces=200,
                eos_id=tokenizer.piece_to_id(eos) if eos is not None else None,
            )
        self.default_config = default_config

    @classmethod
    def from_repo(
        cls: type[Self],
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads tokenizer and model of a repository. Raises what loading either of them does."""
        tokenizer = AutoTokenizer.from_repo(repo)
        model = AutoCausalLM.from_repo(
            repo=repo, device=device, dtype=dtype, quantization_config=quantization_config
        )
        return cls(tokenizer, model)._with_end_ids(end_ids_of_repo(repo))

    @classmethod
    def from_path(
        cls: type[Self],
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads a folder as ``from_repo`` does, or a GGUF file with its tokenizer."""
        options = {"device": device, "dtype": dtype, "quantization_config": quantization_config}
        if not is_gguf(path):
            return cls.from_repo(repo=LocalRepository(path), **options)
        model = AutoCausalLM.from_path(path, **options)
        file = model.checkpoint
        assert isinstance(file, GGUFFile)
        generator = cls(Tokenizer._from_gguf(file), model)
        return generator._with_end_ids(end_ids_of_gguf(file))

    def _with_end_ids(self: Self, ids: frozenset[int]) -> Self:
        if self._takes_end_ids:
            self.end_ids = ids
        return self

    def generate(
        self, prompts: Sequence[str], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """The generated texts, in the prompts' order; ``progress`` shows a bar of finished
        prompts."""
        config = self.complete(config)
        return self.generator.generate(
            self.preprocess_prompts(_checked_prompts(prompts)), config, progress=progress
        )

    def generate_detailed(
        self, prompts: Sequence[str], config: GeneratorConfig, *, progress: bool = False
    ) -> list[Generation]:
        """As :meth:`generate`, with the pieces, why each text ended and, where the configuration
        asks for them, log-probabilities."""
        config = self.complete(config)
        return self.generator.generate_detailed(
            self.preprocess_prompts(_checked_prompts(prompts)), config, progress=progress
        )

    def stream(
        self,
        prompt: str | Messages,
        config: GeneratorConfig,
        *,
        template_options: Mapping[str, Any] | None = None,
    ) -> Iterator[str]:
        """Yields the text of one prompt, or of the reply to chat messages, as it is generated.
        ``template_options`` as for :meth:`chat`."""
        config = self.complete(config)
        return self.generator.stream_ids(self.encode(prompt, template_options), config)

    def chat(
        self,
        messages: Messages,
        config: GeneratorConfig,
        *,
        template_options: Mapping[str, Any] | None = None,
    ) -> str:
        """The reply to ``messages``, mappings with ``role`` and mostly ``content``, by the model's
        chat template. A last message of the role ``assistant`` is the beginning of the reply, which
        goes on there. ``template_options`` are variables of the template, such as ``tools``.

        Raises ``ValueError`` without a template, and when it refuses the conversation.
        """
        config = self.complete(config)
        if config.num_return_sequences != 1:
            raise ValueError("a chat has one reply, num_return_sequences must be 1")
        (reply,) = self.generator.generate_ids(
            [self._encode_chat(messages, template_options or {})], config
        )
        return reply

    def preprocess_prompts(self, prompts: Sequence[str]) -> list[Any]:
        """What the tokenizer gets for each prompt; subclasses put their template here."""
        return list(prompts)

    def encode(
        self, prompt: str | Messages, template_options: Mapping[str, Any] | None = None
    ) -> list[int]:
        """The pieces that the model gets for one prompt, or for chat messages."""
        if isinstance(prompt, str):
            return self.generator.encode(self.preprocess_prompts([prompt]))[0]
        return self._encode_chat(prompt, template_options or {})

    def _encode_chat(self, messages: Messages, options: Mapping[str, Any]) -> list[int]:
        tokenizer = self.generator.tokenizer
        if not isinstance(tokenizer, Tokenizer):
            raise ValueError(
                f"a {type(tokenizer).__name__} has no chat template: only a tokenizer.json or a "
                "GGUF file comes with one; write the prompt yourself"
            )
        check_messages(messages)
        is_begun = bool(messages) and messages[-1]["role"] == "assistant"
        ids: list[int] = tokenizer.encode_chat(
            messages, continue_last_message=is_begun, **options
        ).ids[0]
        return ids

    def complete(self, config: GeneratorConfig) -> GeneratorConfig:
        """A call's configuration with what the defaults supply. ``ValueError`` for what is none."""
        check_kind(config)
        missing: dict[str, Any] = {}
        if config.max_generated_pieces is None:
            missing["max_generated_pieces"] = self.default_config.max_generated_pieces
        if config.eos_id is None:
            missing["eos_id"] = self._all_end_ids()
        return dataclasses.replace(config, **missing)

    def _all_end_ids(self) -> int | frozenset[int] | None:
        default = self.default_config
        ids = self.end_ids | frozenset(default.eos_ids)
        return ids if len(ids) > 1 else next(iter(ids), None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.generator.inner.model!r})"


def _checked_prompts(prompts: Sequence[str]) -> list[str]:
    if isinstance(prompts, str):
        raise TypeError("prompts must be a list of strings; put a single prompt into a list")
    texts = list(prompts)
    others = {type(text).__name__ for text in texts if not isinstance(text, str)}
    if others:
        raise TypeError(f"prompts must be strings, got {', '.join(sorted(others))}")
    return texts
