"""What is tokenized: text, and special pieces between it, as lists of chunks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TextChunk:
    """Text to split into pieces."""

    text: str


@dataclass
class SpecialPieceChunk:
    """A piece that is looked up as it is. ``after`` and ``before`` are text put around it."""

    piece: str
    after: str | None = None
    before: str | None = None


@dataclass
class MergedSpecialPieceChunk:
    """A special piece whose surrounding text has moved into its neighbours."""

    piece: str


class MergedInputChunks(list[TextChunk | MergedSpecialPieceChunk]):
    """Chunks of which no two texts follow each other."""


class InputChunks(list[TextChunk | SpecialPieceChunk]):
    """The chunks of one input, in order."""

    def merge_text_chunks(self) -> MergedInputChunks:
        """Joins consecutive texts, and the ``before`` and ``after`` of special pieces with them.

        The chunks themselves stay as they are. Raises ``ValueError`` for another type of element.
        """
        merged = MergedInputChunks()
        for chunk in self:
            if isinstance(chunk, TextChunk):
                _append_text(merged, chunk.text)
            elif isinstance(chunk, SpecialPieceChunk):
                if chunk.before:
                    _append_text(merged, chunk.before)
                merged.append(MergedSpecialPieceChunk(chunk.piece))
                if chunk.after:
                    _append_text(merged, chunk.after)
            else:
                raise ValueError(f"Unknown chunk type: {type(chunk).__name__}")
        return merged


def _append_text(merged: MergedInputChunks, text: str) -> None:
    # Texts in `merged` are our own, so the last one can grow in place.
    last = merged[-1] if merged else None
    if isinstance(last, TextChunk):
        last.text += text
    else:
        merged.append(TextChunk(text))
