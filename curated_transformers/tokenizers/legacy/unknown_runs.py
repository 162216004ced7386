"""Encoding with SentencePiece that stays linear in runs of characters that the model lacks.

SentencePiece makes one piece of such a run, and copies it for each character: a megabyte of them
takes minutes. Here long runs are cut, their parts encoded one by one, and the parts of the piece
joined. No piece can cross a cut, because no piece has one of the characters beside it. The split is
the same, but for those that score alike: rounding chooses among them, and depends on what precedes.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curated_tokenizers import SentencePieceProcessor

SPACE = "\u2581"
MAX_RUN = 4096


class RunCutter:
    """Encodes texts with a processor."""

    def __init__(self, processor: SentencePieceProcessor) -> None:
        self.processor = processor
        self.lacks: dict[str, bool] = {}  # characters seen in long texts
        self._alphabet: set[str] | None = None

    def encode(self, text: str) -> tuple[list[int], list[str]]:
        """What the processor's ``encode`` returns."""
        first, *others = self.parts(text)
        ids: list[int]
        pieces: list[str]
        ids, pieces = self.processor.encode(first)
        for part in others:
            part_ids, part_pieces = self.processor.encode(part)
            # The part is inside of the text: no space begins it, and it goes on with the piece.
            start = 1 if part_pieces[0] == SPACE else 0
            pieces[-1] += part_pieces[start]
            ids += part_ids[start + 1 :]
            pieces += part_pieces[start + 1 :]
        return ids, pieces

    def parts(self, text: str) -> list[str]:
        """The text, cut inside of runs that are longer than ``MAX_RUN``."""
        if len(text) <= MAX_RUN:
            return [text]
        cuts = [0]
        run = 0
        for at, char in enumerate(text):
            run = run + 1 if self.is_lacking(char) else 0
            # Normalization must not see a character on the other side of a cut.
            if run > MAX_RUN and not _composes(char) and not _composes(text[at - 1]):
                cuts.append(at)
                run = 1
        return [text[start:end] for start, end in zip(cuts, [*cuts[1:], None], strict=True)]

    def is_lacking(self, char: str) -> bool:
        """Whether no piece has the character, and normalization leaves it as it is."""
        lacking = self.lacks.get(char)
        if lacking is None:
            lacking = self.lacks[char] = char not in self.alphabet() and self.is_unknown(char)
        return lacking

    def is_unknown(self, char: str) -> bool:
        """Whether the character by itself is the unknown piece."""
        ids, pieces = self.processor.encode(char)
        return bool(ids[-1:] == [self.processor.unk_id()] and pieces[-1:] == [char])

    def alphabet(self) -> set[str]:
        """The characters of all pieces."""
        if self._alphabet is None:
            names = map(self.processor.id_to_piece, range(len(self.processor)))
            self._alphabet = set().union(*names)
        return self._alphabet


def _composes(char: str) -> bool:
    """Whether normal forms may make one character of this one and what precedes it."""
    return unicodedata.category(char).startswith("M") or "\u1100" <= char <= "\u11ff"
