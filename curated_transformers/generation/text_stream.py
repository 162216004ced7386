"""The text of a growing list of pieces, in parts that are final."""

from __future__ import annotations

import re
from typing import Any

#: The end of a text that later pieces may change: an incomplete UTF-8 sequence, and the beginning
#: of what tokenizers rewrite when they remove spaces (" ." or " n't").
UNSETTLED = re.compile("(?:\ufffd+| (?:n'?|'[vr]?)?)\\Z")


class TextStream:
    """Decodes pieces as they come; all parts together are the text of all pieces."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # pieces whose text is not final, after the last final one
        self._shown = ""  # what has been given of the window's text
        self._text = ""

    def push(self, piece: int) -> str:
        """The text that is final with one more piece, often none: never half a character."""
        self._window.append(piece)
        self._decode()
        settled = UNSETTLED.sub("", self._text)
        if len(settled) <= len(self._shown) or not settled.startswith(self._shown):
            return ""
        new = settled[len(self._shown) :]
        self._shown = settled
        if settled == self._text:
            # The last piece stays as context: decoders treat the first piece of a text differently.
            self._window = self._window[-1:]
            self._decode()
            self._shown = self._text
        return new

    def finish(self) -> str:
        """The rest, when no piece follows."""
        return self._text[len(self._shown) :]

    def _decode(self) -> None:
        (self._text,) = self._tokenizer.decode([self._window])
