"""How to generate: greedily or by sampling, and when to stop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .logits import (
    CompoundLogitsTransform,
    LogitsProcessor,
    LogitsTransform,
    MinPTransform,
    TemperatureTransform,
    TopKTransform,
    TopPTransform,
    VocabMaskTransform,
)
from .settings import check_callable, check_number, check_piece_ids, check_whole_number
from .stop_conditions import (
    CompoundStopCondition,
    EndOfSequenceCondition,
    MaxGeneratedPiecesCondition,
    StopCondition,
    StopWhen,
    as_condition,
)

MAX_COUNT = 2**31 - 1  # more pieces than any vocabulary or text has
MAX_LOGPROBS = 20

WHOLE_NUMBERS = ("max_generated_pieces", "logprobs", "num_return_sequences", "top_k", "seed")
NUMBERS = (
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "temperature",
    "top_p",
    "min_p",
)


@dataclass
class GeneratorConfig:
    """What all ways of generating share. Fields after the first three go by name.

    - ``masked_pieces`` are never chosen.
    - ``eos_id``, or each of several, ends a text and is not part of it.
    - ``max_generated_pieces`` below 1 means no limit but the model's positions.
    - ``repetition_penalty`` divides the logits of the pieces in prompt and text where they are
      positive and multiplies them where they are negative; 1 does nothing.
    - ``presence_penalty`` is subtracted from the logits of the pieces that were generated,
      ``frequency_penalty`` as often as they were.
    - ``bad_words`` are lists of piece ids that do not occur: the last piece is not chosen when
      prompt and text end in the others.
    - ``stop``, a string or several, ends a text that comes to one; the text ends before it.
    - ``logprobs`` asks for the log-probability of each piece, and of that many of the most probable
      ones (up to 20); ``generate_detailed`` returns them.
    - ``num_return_sequences`` texts are generated for each prompt, one behind the other.
    - ``logits_processor`` changes the logits before everything else, ``stop_when`` ends a text;
      both are called from the core for each text and step, which is slow.
    """

    masked_pieces: set[int] | None = None
    eos_id: int | Collection[int] | None = None
    max_generated_pieces: int | None = None
    repetition_penalty: float = field(default=1.0, kw_only=True)
    presence_penalty: float = field(default=0.0, kw_only=True)
    frequency_penalty: float = field(default=0.0, kw_only=True)
    bad_words: Sequence[Sequence[int]] | None = field(default=None, kw_only=True)
    stop: str | Sequence[str] | None = field(default=None, kw_only=True)
    logprobs: int | None = field(default=None, kw_only=True)
    num_return_sequences: int = field(default=1, kw_only=True)
    logits_processor: LogitsProcessor | None = field(default=None, kw_only=True)
    stop_when: StopWhen | None = field(default=None, kw_only=True)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a text."""
        if self.eos_id is None:
            return ()
        return tuple(self.eos_id) if isinstance(self.eos_id, Collection) else (self.eos_id,)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings before which a text ends."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def logits_transform(self) -> LogitsTransform:
        """The masks and cuts in their order, without what depends on the text. ``ValueError`` for
        values that cannot be used. A subclass that returns something else has it applied to each
        row of logits, in Python, before the penalties."""
        raise ValueError(f"Unknown generator configuration: {type(self).__name__}")

    def stop_condition(self) -> StopCondition:
        """End pieces, maximum and ``stop_when``, in this order. ``ValueError`` where one of the
        first two is unset. A subclass that returns something else has it asked in each step."""
        if self.eos_id is None:
            raise ValueError("End-of-sequence piece id is unset")
        if self.max_generated_pieces is None:
            raise ValueError("Maximum number of generation steps is unset")
        conditions = CompoundStopCondition(
            [
                EndOfSequenceCondition(self.eos_id),
                MaxGeneratedPiecesCondition(self.max_generated_pieces),
            ]
        )
        if self.stop_when is not None:
            conditions.append(as_condition(self.stop_when))
        return conditions

    def check(self) -> None:
        """``ValueError`` for settings that cannot be used, ``TypeError`` for those of another
        type."""
        self._check_types()
        self._check_calls()
        if not self.repetition_penalty > 0:
            raise ValueError(
                f"The repetition penalty must be above 0 (1: none), was: {self.repetition_penalty}"
            )
        if self.num_return_sequences < 1:
            raise ValueError(
                f"num_return_sequences must be at least 1, was: {self.num_return_sequences}"
            )
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise ValueError(f"logprobs must be between 0 and {MAX_LOGPROBS}, was: {self.logprobs}")
        if any(not isinstance(text, str) or not text for text in self.stop_strings):
            raise ValueError(f"stop must be strings that are not empty, was: {self.stop!r}")
        if any(len(word) == 0 for word in self._bad_words()):
            raise ValueError("bad words must have at least one piece")

    def _check_types(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None and one.default is None:
                continue
            if one.name in WHOLE_NUMBERS:
                check_whole_number(one.name, value)
            elif one.name in NUMBERS:
                check_number(one.name, value)
        if self.masked_pieces is not None:
            check_piece_ids("masked_pieces", self.masked_pieces)
        if self.eos_id is not None:
            check_piece_ids("eos_id", self.eos_ids)
        if self.stop is not None and not isinstance(self.stop, Iterable):
            raise TypeError(f"stop must be a string or several, got {self.stop!r}")

    def _check_calls(self) -> None:
        if self.logits_processor is not None:
            check_callable("logits_processor", self.logits_processor)
        if self.stop_when is not None and not isinstance(self.stop_when, StopCondition):
            check_callable("stop_when", self.stop_when)
        condition = self.stop_condition()
        if not isinstance(condition, StopCondition):
            raise TypeError(f"stop_condition must return a StopCondition, returned {condition!r}")
        check_callable("what logits_transform returns", self.logits_transform())

    def _bad_words(self) -> list[list[int]]:
        words = () if self.bad_words is None else self.bad_words
        if not isinstance(words, Iterable):
            raise TypeError(f"bad_words must be lists of piece ids, got {words!r}")
        return [check_piece_ids("a word of bad_words", word) for word in words]

    def python_transform(self) -> LogitsTransform | None:
        """What a subclass put in the place of ``logits_transform``."""
        return None

    def python_condition(self) -> StopCondition | None:
        """The conditions that only Python knows."""
        if type(self).stop_condition is not GeneratorConfig.stop_condition:
            return self.stop_condition()
        return None if self.stop_when is None else as_condition(self.stop_when)

    def session_options(self, n_pieces: int) -> dict[str, Any]:
        """What the core's session takes for a prompt, but the seed. ``ValueError`` for ids that a
        model of ``n_pieces`` does not have."""
        bad_words = self._bad_words()
        masked = () if self.masked_pieces is None else self.masked_pieces
        banned = [*masked, *(word[0] for word in bad_words if len(word) == 1)]
        longer = [id for word in bad_words if len(word) > 1 for id in (len(word), *word)]
        VocabMaskTransform(banned).check(n_pieces)
        ends_here = type(self).stop_condition is not GeneratorConfig.stop_condition
        return {
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "banned": np.array(banned, dtype=np.int64),
            "bad_words": np.array(longer, dtype=np.int64),
            "eos_ids": [] if ends_here else list(self.eos_ids),
            "max_pieces": 0 if ends_here else _counted(self.max_generated_pieces or 0),
            "logprobs": -1 if self.logprobs is None else self.logprobs,
        }

    def _mask_transforms(self) -> CompoundLogitsTransform:
        if self.masked_pieces is None:
            return CompoundLogitsTransform()
        return CompoundLogitsTransform([VocabMaskTransform(self.masked_pieces)])


@dataclass
class GreedyGeneratorConfig(GeneratorConfig):
    """Always the most probable piece."""

    def logits_transform(self) -> LogitsTransform:
        """The mask of pieces where there is one."""
        masks = self._mask_transforms()
        return masks[0] if masks else masks

    def python_transform(self) -> LogitsTransform | None:
        is_ours = type(self).logits_transform is GreedyGeneratorConfig.logits_transform
        return None if is_ours else self.logits_transform()


@dataclass
class SampleGeneratorConfig(GeneratorConfig):
    """A draw from what temperature, top-k, top-p and min-p leave, in this order; ``min_p`` leaves
    pieces that have at least this part of the largest probability.

    The same ``seed`` gives a prompt the same text wherever it stands at the same place of the list,
    whatever the other prompts are; equal prompts of one list get texts of their own. Without a seed
    each call draws anew.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = field(default=0.0, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)

    def logits_transform(self) -> LogitsTransform:
        """The mask of pieces where there is one, temperature, top-k, top-p, and min-p where it is
        not 0."""
        transforms = self._mask_transforms()
        transforms += [
            TemperatureTransform(self.temperature),
            TopKTransform(self.top_k),
            TopPTransform(self.top_p),
        ]
        min_p = MinPTransform(self.min_p)
        return CompoundLogitsTransform([*transforms, min_p] if self.min_p > 0 else transforms)

    def python_transform(self) -> LogitsTransform | None:
        is_ours = type(self).logits_transform is SampleGeneratorConfig.logits_transform
        return None if is_ours else self.logits_transform()

    def session_options(self, n_pieces: int) -> dict[str, Any]:
        options = super().session_options(n_pieces)
        if self.python_transform() is not None:  # it has all of what follows, or wants none of it
            return {**options, "temperature": 1.0}
        return {
            **options,
            "temperature": self.temperature,
            "top_k": _counted(self.top_k),
            "top_p": self.top_p,
            "min_p": self.min_p,
        }


def check_kind(config: object) -> None:
    """``ValueError`` for what is none of the two configurations that generators know."""
    if not isinstance(config, GreedyGeneratorConfig | SampleGeneratorConfig):
        what = type(config).__name__
        if isinstance(config, type):
            what = f"the class {config.__name__} itself"
        raise ValueError(
            f"Unknown generator configuration: {what}; a GreedyGeneratorConfig(...) or a "
            "SampleGeneratorConfig(...) is one"
        )


def _counted(n: int) -> int:
    """Below 1 there is no limit, which is 0 in the core; beyond what it counts there is none that
    anything comes to."""
    return min(max(n, 0), MAX_COUNT)
