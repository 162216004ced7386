"""What is known of a generated text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .. import _core
from .python_steps import FINISH_STOP

FinishReason: TypeAlias = Literal["eos", "length", "stop"]

FINISH_REASONS: dict[int, FinishReason] = {
    _core.FINISH_EOS: "eos",
    _core.FINISH_LENGTH: "length",
    FINISH_STOP: "stop",
}


@dataclass
class Generation:
    """A generated text.

    ``pieces`` are all that were generated, those of a stop string and behind it included, which
    ``text`` ends before. ``finish_reason`` is "eos" for an end piece, "length" for the maximum or
    the model's positions, "stop" for a stop string or ``stop_when``. With ``logprobs`` in the
    configuration there is one for each piece, and in ``top_logprobs`` pairs of the most probable
    pieces and theirs; they are the model's own, before all transforms.
    """

    text: str
    pieces: list[int]
    finish_reason: FinishReason
    logprobs: list[float] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None
