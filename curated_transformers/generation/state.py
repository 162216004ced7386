"""What is known of a batch of sequences between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..layers.mask import AttentionMask
from .stop_conditions import StopCondition

Ids = npt.NDArray[np.int64]


class GeneratorState:
    """The sequences that have not ended yet; those that end are dropped from everything.

    ``attention_mask`` is by key, ``[batch, seq]``, as an ``AttentionMask`` or booleans; ``cache``
    the list of layers that a model returned, or None; ``prompt_ids`` ``[batch, seq]``, padded at
    the left. ``seq_ids`` ``[batch]`` are the sequences' places in the first batch,
    ``generated_ids`` ``[batch, pieces]`` what was generated, ``positions`` ``[batch, pieces]``
    those of the pieces that the next step feeds.
    """

    def __init__(
        self, *, attention_mask: Any, cache: Sequence[Any] | None, prompt_ids: Any
    ) -> None:
        if not isinstance(attention_mask, AttentionMask):
            attention_mask = AttentionMask(attention_mask)
        self.attention_mask: AttentionMask = attention_mask
        self.cache = cache
        self.prompt_ids: Ids = np.asarray(prompt_ids, dtype=np.int64)
        batch = self.prompt_ids.shape[0]
        mask = attention_mask.bool_mask.numpy().reshape(batch, -1)
        self.positions: Ids = np.cumsum(mask, axis=-1, dtype=np.int64) - 1
        self.seq_ids: Ids = np.arange(batch)
        self.generated_ids: Ids = np.zeros((batch, 0), dtype=np.int64)

    @property
    def is_finished(self) -> bool:
        """Whether all sequences have ended."""
        return len(self.seq_ids) == 0

    @property
    def last_step_ids(self) -> Ids:
        """What the next step feeds: the prompts, then the pieces that were generated last."""
        n_generated = self.generated_ids.shape[1]
        return self.generated_ids[:, -1:] if n_generated > 0 else self.prompt_ids

    def step(
        self, cache: Sequence[Any] | None, predicted_ids: Any, stop_condition: StopCondition
    ) -> tuple[Ids, Ids]:
        """Takes the pieces ``[batch, 1]`` of a step, and the model's cache behind it. Returns the
        places ``[n]`` and pieces ``[n, 1]`` of the sequences that emit one."""
        self.cache = cache
        self.append(predicted_ids)
        exclude, include = self.completed(stop_condition)
        emits = ~exclude
        emitted = self.seq_ids[emits], self.generated_ids[emits, -1:]
        self._keep(~(exclude | include))
        return emitted

    def append(self, predicted_ids: Any) -> None:
        """A piece ``[batch, 1]`` behind each sequence."""
        predicted = np.asarray(predicted_ids, dtype=np.int64).reshape(-1, 1)
        self.generated_ids = np.concatenate([self.generated_ids, predicted], axis=1)
        self.attention_mask = self.attention_mask.extend_length(1, True)
        self.positions = self.positions.max(axis=1, keepdims=True) + 1

    def completed(
        self, stop_condition: StopCondition
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which sequences have ended, ``[batch]``: without their last piece, and with it."""
        exclude = np.zeros((len(self.seq_ids), 1), dtype=np.bool_)
        include = np.zeros_like(exclude)
        stop_condition.update_completed(
            state=self, completed_exclude=exclude, completed_include=include
        )
        return exclude[:, 0], include[:, 0]

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        if rows.all():
            return
        for name in ("prompt_ids", "positions", "seq_ids", "generated_ids"):
            setattr(self, name, getattr(self, name)[rows])
        self.attention_mask = self.attention_mask.filter_batch_items(rows)
        if self.cache is not None:
            self.cache = [layer.filter_batch_items(rows) for layer in self.cache]
