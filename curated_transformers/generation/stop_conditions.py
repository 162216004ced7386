"""Conditions that end a text, over the state of a batch.

While it generates, the core looks for end pieces and the maximum itself; other conditions are asked
step by step (``GeneratorConfig.stop_when``), and all of them may be used with a ``GeneratorState``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .state import GeneratorState


class StopCondition(ABC):
    """Base of all conditions."""

    @abstractmethod
    def update_completed(
        self, *, state: GeneratorState, completed_exclude: Any, completed_include: Any
    ) -> None:
        """Marks the sequences that have ended. Both arrays are boolean, ``[batch, 1]``, and changed
        in place: ``completed_exclude`` is for those whose last piece is not emitted,
        ``completed_include`` for those whose last piece is."""


class CompoundStopCondition(list[StopCondition], StopCondition):
    """A list of conditions; a sequence ends when one of them says so."""

    def update_completed(
        self, *, state: GeneratorState, completed_exclude: Any, completed_include: Any
    ) -> None:
        for condition in self:
            condition.update_completed(
                state=state,
                completed_exclude=completed_exclude,
                completed_include=completed_include,
            )


class EndOfSequenceCondition(StopCondition):
    """Ends a sequence at ``eos_id``, or at each of several, which is not emitted."""

    def __init__(self, eos_id: int | Collection[int]) -> None:
        self.eos_id = eos_id

    def update_completed(
        self, *, state: GeneratorState, completed_exclude: Any, completed_include: Any
    ) -> None:
        ids = list(self.eos_id) if isinstance(self.eos_id, Collection) else [self.eos_id]
        if state.generated_ids.shape[1] > 0:
            _mark(completed_exclude, np.isin(state.generated_ids[:, -1:], ids))


class MaxGeneratedPiecesCondition(StopCondition):
    """Ends a sequence that has ``max_generated_pieces``; below 1 never."""

    def __init__(self, max_generated_pieces: int) -> None:
        self.max_generated_pieces = max_generated_pieces

    def update_completed(
        self, *, state: GeneratorState, completed_exclude: Any, completed_include: Any
    ) -> None:
        if 1 <= self.max_generated_pieces <= state.generated_ids.shape[1]:
            _mark(completed_include, True)


class PredicateCondition(StopCondition):
    """Ends a sequence, behind its last piece, when ``predicate`` says so of the list of its
    generated pieces."""

    def __init__(self, predicate: Callable[[list[int]], Any]) -> None:
        self.predicate = predicate

    def update_completed(
        self, *, state: GeneratorState, completed_exclude: Any, completed_include: Any
    ) -> None:
        ended = [bool(self.predicate(ids)) for ids in state.generated_ids.tolist()]
        _mark(completed_include, np.array(ended, dtype=np.bool_).reshape(-1, 1))


StopWhen: TypeAlias = StopCondition | Callable[[list[int]], Any]


def as_condition(stop_when: StopWhen) -> StopCondition:
    """A condition, also of a function of a text's generated pieces."""
    return stop_when if isinstance(stop_when, StopCondition) else PredicateCondition(stop_when)


def _mark(completed: Any, rows: npt.NDArray[np.bool_] | bool) -> None:
    # Tensors, torch's too, share their memory with what numpy() returns.
    values = completed if isinstance(completed, np.ndarray) else completed.numpy()
    values |= rows
