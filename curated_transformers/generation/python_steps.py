"""The steps of a session with the parts of a configuration that are Python.

A processor sees the logits of each text and step inside the core's step; conditions are asked of
its events, and a text that they end is cancelled at once. The loop stays the session's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .config import GeneratorConfig
from .logits import process
from .state import GeneratorState
from .stop_conditions import StopCondition

#: Why a text ended, behind those of the core: a condition in Python, or a stop string.
FINISH_STOP = 3


class PythonSteps:
    """In the place of the session, with the members that a generator needs."""

    def __init__(
        self, session: _core.Session, config: GeneratorConfig, prompts: Sequence[Any]
    ) -> None:
        self._session = session
        self._condition = config.python_condition()
        processors = (config.logits_processor, config.python_transform())
        self._processors = [one for one in processors if one is not None]
        self._prompts = prompts
        self._states: dict[int, GeneratorState] = {}
        self._events: list[_core.Event] = []

    @property
    def is_done(self) -> bool:
        """Whether all texts have ended."""
        return self._session.is_done

    def cancel(self, sequence: int, /) -> None:
        """Ends a text without an event."""
        self._session.cancel(sequence)
        self._states.pop(sequence, None)

    def run(self, max_steps: int = -1, /) -> list[_core.Event]:
        """The events of the next steps. What came before an exception comes with the next call."""
        hook = self._hook if self._processors else None
        while not self.is_done and max_steps != 0:
            for event in self._session.run(1, hook):
                self._events.append(self._judge(event))
            max_steps -= 1
        events, self._events = self._events, []
        return events

    def _hook(self, _: int, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> None:
        for processor in self._processors:
            process(processor, ids, logits)

    def _judge(self, event: _core.Event) -> _core.Event:
        """The event, or another one when the condition ends the text."""
        if self._condition is None:
            return event
        finish, piece = event.finish, event.piece
        if piece >= 0:
            excluded, included = self._completed(self._condition, event)
            piece = -1 if excluded else piece
            if excluded or (included and finish == _core.FINISH_NONE):
                finish = FINISH_STOP
                self._session.cancel(event.sequence)
        if finish != _core.FINISH_NONE:
            self._states.pop(event.sequence, None)
        return _core.Event((event.sequence, piece, finish, event.logprob, event.top))

    def _completed(self, condition: StopCondition, event: _core.Event) -> tuple[bool, bool]:
        number = event.sequence
        if number not in self._states:
            prompt = np.asarray(self._prompts[number])[None]
            state = GeneratorState(
                attention_mask=np.ones(prompt.shape, np.bool_), cache=None, prompt_ids=prompt
            )
            state.seq_ids[:] = number
            self._states[number] = state
        state = self._states[number]
        state.append([[event.piece]])
        exclude, include = state.completed(condition)
        return bool(exclude[0]), bool(include[0])


def needs_python(config: GeneratorConfig) -> bool:
    """Whether steps of the configuration go through Python."""
    return (
        config.logits_processor is not None
        or config.python_transform() is not None
        or config.python_condition() is not None
    )
