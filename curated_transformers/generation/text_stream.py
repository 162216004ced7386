"""The text of a growing list of pieces, in parts that are final."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: The beginning of what tokenizers rewrite when they remove spaces: " .", " n't", " n ' t".
SPACED = "(?: (?:n(?: ?')?|'[vr]?)?)+\\Z"
#: The end of a text that later pieces may change: that, and an incomplete UTF-8 sequence.
UNSETTLED = re.compile(f"\ufffd+\\Z|{SPACED}")


class TextStream:
    """Decodes pieces as they come; all parts together are the text of all pieces, up to the first
    of the ``stops``."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = StopFinder(stops)
        self._window: list[int] = []  # pieces whose text is not final, after the last final one
        self._shown = ""  # what has been given of the window's text
        self._text = ""

    @property
    def is_stopped(self) -> bool:
        """Whether the text has come to a stop string; nothing follows."""
        return self._stops.is_found

    def push(self, piece: int) -> str:
        """The text that is final with one more piece, often none: never half a character, nor what
        may be part of a stop string."""
        return self._stops.push(self._settle(piece))

    def finish(self) -> str:
        """The rest, when no piece follows."""
        return self._stops.push(self._text[len(self._shown) :]) + self._stops.finish()

    def _settle(self, piece: int) -> str:
        self._window.append(piece)
        self._text = self._decode(self._window)
        settled = UNSETTLED.sub("", self._text)
        if len(settled) <= len(self._shown) or not settled.startswith(self._shown):
            return ""
        new = settled[len(self._shown) :]
        self._shown = settled
        if settled == self._text:
            # The last piece stays as context: decoders treat the first piece of a text differently.
            # It is enough unless it is rewritten with the next one, by itself as in the text.
            alone = self._decode(self._window[-1:])
            if not re.search(SPACED, alone):
                self._window = self._window[-1:]
                self._text = self._shown = alone
        return new

    def _decode(self, pieces: list[int]) -> str:
        text: str
        (text,) = self._tokenizer.decode([pieces])
        return text


class StopFinder:
    """Gives a text on up to the stop string that is complete first, and holds back what may be the
    beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.is_found = False

    def push(self, text: str) -> str:
        """What may be shown with ``text`` behind the text so far."""
        if self.is_found or not self._stops:
            return "" if self.is_found else text
        text = self._held + text
        places = [(text.find(stop), stop) for stop in self._stops]
        found = min(((at + len(stop), at) for at, stop in places if at >= 0), default=None)
        if found is not None:
            self.is_found = True
            self._held = ""
            return text[: found[1]]
        shown = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """What was held back, when no text follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` with which ``stop`` begins, but for all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
