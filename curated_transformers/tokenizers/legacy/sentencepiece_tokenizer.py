"""SentencePiece models: `curated_tokenizers` splits and joins, here ids get the model's numbers.

The numbers differ because the first models were trained with tables that put pieces of their own
before those of SentencePiece, or behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .files import OpenableFile, file_name, read_bytes
from .legacy_tokenizer import LegacyTokenizer
from .unknown_runs import SPACE, RunCutter

if TYPE_CHECKING:
    from curated_tokenizers import SentencePieceProcessor

__all__ = ["PieceNumbers", "SentencePieceTokenizer", "read_processor"]


@dataclass(frozen=True)
class PieceNumbers:
    """From SentencePiece's ids to the model's.

    ``moved`` are exceptions, all others are increased by ``offset``. ``added`` are the model's ids
    that have no piece in SentencePiece.
    """

    offset: int = 0
    moved: Mapping[int, int] = field(default_factory=dict)
    added: Mapping[int, str] = field(default_factory=dict)

    def model_id(self, piece_id: int) -> int:
        """The model's id of a SentencePiece id."""
        return self.moved.get(piece_id, piece_id + self.offset)

    def piece_id(self, model_id: int) -> int:
        """The reverse. The result is outside of SentencePiece's ids when there is none."""
        for piece_id, moved_to in self.moved.items():
            if moved_to == model_id:
                return piece_id
        piece_id = model_id - self.offset
        return -1 if piece_id in self.moved else piece_id


class SentencePieceTokenizer(LegacyTokenizer):
    """Splits texts with a SentencePiece model, each text chunk by itself.

    ``processor`` is a `curated_tokenizers.SentencePieceProcessor`. What the model does not know
    keeps its text and gets the unknown id, which decodes to " \u2047 ".
    """

    #: How ids are numbered; subclasses set their own.
    _numbers = PieceNumbers()

    def __init__(self, *, processor: SentencePieceProcessor) -> None:
        self.processor = processor
        self._cutter = RunCutter(processor)

    def piece_to_id(self, piece: str) -> int | None:
        """The model's id of a piece; None when there is no such piece."""
        piece_id: int | None = self.processor.piece_to_id(piece)
        if piece_id is not None:
            return self._numbers.model_id(piece_id)
        return next((key for key, name in self._numbers.added.items() if name == piece), None)

    @property
    def eos_piece(self) -> str | None:
        """The piece that ends a text, as the SentencePiece model has it."""
        return self._own_piece(self.processor.eos_id())

    @property
    def _bos_piece(self) -> str | None:
        return self._own_piece(self.processor.bos_id())

    def _own_piece(self, piece_id: int) -> str | None:
        piece: str | None = self.processor.id_to_piece(piece_id)  # -1 has none
        return piece

    def _encode_text(self, text: str) -> tuple[list[int], list[str]]:
        ids, pieces = self._cutter.encode(text)
        return [self._numbers.model_id(piece_id) for piece_id in ids], pieces

    def _decode(self, input: list[list[int]], skip_special_pieces: bool) -> list[str]:
        return [
            _Decoding(self.processor, self._numbers, not skip_special_pieces).text(ids)
            for ids in input
        ]


class _Decoding:
    """The text of one sequence: SentencePiece decodes runs of pieces, special pieces between them
    are left out or written as they are."""

    def __init__(
        self, processor: SentencePieceProcessor, numbers: PieceNumbers, write_special: bool
    ) -> None:
        self.processor = processor
        self.numbers = numbers
        self.write_special = write_special
        self.parts: list[str] = []
        self.run: list[int] = []
        self.n_pieces = len(processor)
        self.kinds: dict[int, str | None] = {}  # by the model's id: how a special piece is written
        self.unknown = processor.decode_from_ids([processor.unk_id()])

    def text(self, ids: list[int]) -> str:
        for model_id in ids:
            if model_id not in self.kinds:
                self.kinds[model_id] = self.special_piece(model_id)
            special = self.kinds[model_id]
            if special is None:
                self.run.append(self.numbers.piece_id(model_id))
            elif self.write_special:
                self.end_run()
                self.parts.append(special)
        self.end_run()
        return "".join(self.parts)

    def end_run(self) -> None:
        if not self.run:
            return
        if not self.parts:
            self.parts.append(self.processor.decode_from_ids(self.run))
        else:
            # The space that begins a text is not written, but this one is inside of it.
            text = self.processor.decode_from_ids([self.processor.unk_id(), *self.run])
            self.parts.append(text[len(self.unknown) :])
        self.run = []

    def special_piece(self, model_id: int) -> str | None:
        if model_id in self.numbers.added:
            return self.numbers.added[model_id]
        piece_id = self.numbers.piece_id(model_id)
        if not 0 <= piece_id < self.n_pieces:
            raise ValueError(f"Unknown piece identifier: {model_id}")
        piece: str = self.processor.id_to_piece(piece_id)
        # Control pieces are those that decode to nothing although they are not space.
        after_unknown = self.processor.decode_from_ids([self.processor.unk_id(), piece_id])
        is_control = after_unknown == self.unknown and piece.strip(SPACE) != ""
        return piece if is_control else None


def read_processor(file: OpenableFile) -> SentencePieceProcessor:
    """Loads a SentencePiece model. Raises ``ValueError`` when the file holds none."""
    from curated_tokenizers import SentencePieceProcessor

    content = read_bytes(file)
    try:
        processor = SentencePieceProcessor.from_protobuf(content)
        len(processor)
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"{file_name(file)}: not a SentencePiece model: {error}") from None
    return processor
