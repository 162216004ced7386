"""How to generate: greedily or by sampling, and when to stop."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_TOP_K = 2**31 - 1  # more than any vocabulary has


class Sampling(NamedTuple):
    """How the core chooses a piece; temperature 0 is greedy, top-k 0 keeps all."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass
class GeneratorConfig:
    """What all ways of generating share.

    ``masked_pieces`` are never chosen; ``eos_id``, or each of several, ends a text and is not part
    of it;
    ``max_generated_pieces`` below 1 means no limit but the model's positions.
    """

    masked_pieces: set[int] | None = None
    eos_id: int | Collection[int] | None = None
    max_generated_pieces: int | None = None

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The ids that end a text."""
        if self.eos_id is None:
            return ()
        return tuple(self.eos_id) if isinstance(self.eos_id, Collection) else (self.eos_id,)

    def check(self) -> None:
        """``ValueError`` for settings that cannot be used."""
        if self.eos_id is None:
            raise ValueError("End-of-sequence piece id is unset")
        if self.max_generated_pieces is None:
            raise ValueError("Maximum number of generation steps is unset")
        if self.masked_pieces and min(self.masked_pieces) < 0:
            raise ValueError("Masked piece ids must be >= 0")

    def sampling(self) -> Sampling:
        """What the core's session takes."""
        raise ValueError(f"Unknown generator configuration: {type(self).__name__}")


@dataclass
class GreedyGeneratorConfig(GeneratorConfig):
    """Always the most probable piece."""

    def sampling(self) -> Sampling:
        return Sampling()


@dataclass
class SampleGeneratorConfig(GeneratorConfig):
    """A draw from what temperature, top-k and top-p leave, in this order.

    The same ``seed`` gives a prompt the same text wherever it stands at the same place of the list,
    whatever the other prompts are; equal prompts of one list get texts of their own. Without a seed
    each call draws anew.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def check(self) -> None:
        super().check()
        if not self.temperature > 0:  # also refuses NaN
            raise ValueError(
                f"The temperature must be a non-zero positive value, was: {self.temperature}"
            )
        if not 0 <= self.top_p <= 1:
            raise ValueError(
                f"Top-p probability must be between 0 and 1 (inclusive), was: {self.top_p}"
            )

    def sampling(self) -> Sampling:
        return Sampling(self.temperature, min(max(self.top_k, 0), MAX_TOP_K), self.top_p)


def masked_array(pieces: Iterable[int] | None, n_pieces: int) -> npt.NDArray[np.bool_] | None:
    """One entry a piece, true where it must not be chosen. ``ValueError`` for ids that do not
    exist."""
    if not pieces:
        return None
    mask = np.zeros(n_pieces, dtype=np.bool_)
    for piece in pieces:
        if piece >= n_pieces:
            raise ValueError(f"Masked piece ids must be < {n_pieces}, but got {piece}")
        mask[piece] = True
    return mask
