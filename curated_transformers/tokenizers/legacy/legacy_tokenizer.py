"""The pipeline around a tokenizer's own splitting: normalize, add special pieces, split; and back.

Each step is an optional callable, so that the tokenizers differ in the steps they set. No step
changes what the caller passed in.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from ..base import PiecesWithIds, TokenizerBase, checked_batch, checked_ids
from ..chunks import InputChunks, MergedInputChunks, SpecialPieceChunk, TextChunk

__all__ = [
    "AddBosEosPreEncoder",
    "DefaultNormalizer",
    "DropPiecesPreDecoder",
    "LegacyTokenizer",
    "Normalizer",
    "PostDecoder",
    "PostEncoder",
    "PreDecoder",
    "PreEncoder",
    "UnicodeNormalization",
]


class Normalizer(ABC):
    """Rewrites the texts of chunks before anything else."""

    @abstractmethod
    def __call__(self, chunks: Iterable[InputChunks]) -> list[InputChunks]:
        """New chunks with rewritten texts."""


class PreEncoder(ABC):
    """Changes chunks before they are split: adds special pieces, sets words apart."""

    @abstractmethod
    def __call__(self, chunks: Iterable[InputChunks]) -> list[InputChunks]:
        """New chunks."""


class PostEncoder(ABC):
    """Changes the pieces of a batch."""

    @abstractmethod
    def __call__(self, pieces: PiecesWithIds) -> PiecesWithIds:
        """The changed pieces."""


class PreDecoder(ABC):
    """Changes ids before they are decoded."""

    @abstractmethod
    def __call__(self, input: Iterable[Sequence[int]]) -> list[list[int]]:
        """New lists of ids."""


class PostDecoder(ABC):
    """Changes decoded texts."""

    @abstractmethod
    def __call__(self, output: Iterable[str]) -> list[str]:
        """The changed texts."""


class LegacyTokenizer(TokenizerBase):
    """A tokenizer whose steps can be set one by one; None leaves a step out."""

    normalizer: Normalizer | None = None
    pre_encoder: PreEncoder | None = None
    post_encoder: PostEncoder | None = None
    pre_decoder: PreDecoder | None = None
    post_decoder: PostDecoder | None = None

    def encode(self, input: Iterable[str] | Iterable[InputChunks]) -> PiecesWithIds:
        """Tokenizes a batch of texts or of chunks.

        A special piece that is written out in a text is text like any other; only a
        ``SpecialPieceChunk`` stands for the piece. Raises ``ValueError`` for elements of another
        type, a single string, unknown special pieces and texts that are not Unicode.
        """
        texts, chunks = checked_batch(input)
        if texts:
            chunks = [InputChunks([TextChunk(text)]) for text in texts]
        if self.normalizer is not None:
            chunks = self.normalizer(chunks)
        if self.pre_encoder is not None:
            chunks = self.pre_encoder(chunks)
        pieces = self._encode([element.merge_text_chunks() for element in chunks])
        return pieces if self.post_encoder is None else self.post_encoder(pieces)

    def decode(
        self, input: Iterable[Sequence[int]], *, skip_special_pieces: bool = True
    ) -> list[str]:
        """The texts of a batch of id sequences.

        ``skip_special_pieces`` leaves out padding and the like; the pieces that the tokenizer
        itself puts around a text are left out always. Raises ``ValueError`` for ids that are not in
        the vocabulary, ``TypeError`` for what is no batch of ids.
        """
        ids = checked_ids(input)
        if self.pre_decoder is not None:
            ids = self.pre_decoder(ids)
        texts = self._decode(ids, skip_special_pieces)
        return texts if self.post_decoder is None else self.post_decoder(texts)

    def _encode(self, input: Iterable[MergedInputChunks]) -> PiecesWithIds:
        batch = PiecesWithIds(ids=[], pieces=[])
        for chunks in input:
            ids: list[int] = []
            pieces: list[str] = []
            for chunk in chunks:
                if isinstance(chunk, TextChunk):
                    text_ids, text_pieces = self._encode_text(chunk.text)
                    ids += text_ids
                    pieces += text_pieces
                else:
                    ids.append(self._special_piece_id(chunk.piece))
                    pieces.append(chunk.piece)
            batch.ids.append(ids)
            batch.pieces.append(pieces)
        return batch

    def _special_piece_id(self, piece: str) -> int:
        piece_id = self.piece_to_id(piece)
        if piece_id is None:
            raise ValueError(f"Unknown special piece: {piece}")
        return piece_id

    @abstractmethod
    def _encode_text(self, text: str) -> tuple[Sequence[int], Sequence[str]]:
        """Splits one text into ids and pieces."""

    @abstractmethod
    def _decode(self, input: list[list[int]], skip_special_pieces: bool) -> list[str]:
        """The texts of id sequences, after the pre-decoder."""


class AddBosEosPreEncoder(PreEncoder):
    """Puts a special piece before and one behind each input; None leaves one out."""

    def __init__(self, *, bos_piece: str | None, eos_piece: str | None) -> None:
        self.bos_piece = bos_piece
        self.eos_piece = eos_piece

    def __call__(self, chunks: Iterable[InputChunks]) -> list[InputChunks]:
        return [InputChunks(self._surrounded(element)) for element in chunks]

    def _surrounded(self, chunks: InputChunks) -> list[TextChunk | SpecialPieceChunk]:
        before = [] if self.bos_piece is None else [SpecialPieceChunk(self.bos_piece)]
        behind = [] if self.eos_piece is None else [SpecialPieceChunk(self.eos_piece)]
        return [*before, *chunks, *behind]


class DropPiecesPreDecoder(PreDecoder):
    """Leaves out some ids wherever they stand."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = frozenset(ids)

    def __call__(self, input: Iterable[Sequence[int]]) -> list[list[int]]:
        return [[piece_id for piece_id in ids if piece_id not in self.ids] for ids in input]


class UnicodeNormalization(str, Enum):
    """The normal forms of Unicode."""

    NFC = "NFC"
    NFKC = "NFKC"
    NFD = "NFD"
    NFKD = "NFKD"


class DefaultNormalizer(Normalizer):
    """Lower case, then no accents, then a normal form of Unicode, each if asked for.

    Lower case is Python's, which writes a capital sigma at the end of a word as the final form;
    accents are the non-spacing marks of the canonical decomposition, which stays decomposed.
    """

    def __init__(
        self,
        *,
        utf_normalization: UnicodeNormalization | None = None,
        lowercase: bool = False,
        strip_accents: bool = False,
    ) -> None:
        self.utf_normalization = utf_normalization
        self.lowercase = lowercase
        self.strip_accents = strip_accents

    def __call__(self, chunks: Iterable[InputChunks]) -> list[InputChunks]:
        return map_texts(chunks, self.normalize)

    def normalize(self, text: str) -> str:
        """One text, normalized."""
        if self.lowercase:
            text = text.lower()
        if self.strip_accents:
            text = unicodedata.normalize("NFD", text).translate(_WITHOUT_MARKS)
        if self.utf_normalization is not None:
            text = unicodedata.normalize(UnicodeNormalization(self.utf_normalization).value, text)
        return text


def map_texts(chunks: Iterable[InputChunks], rewrite: Callable[[str], str]) -> list[InputChunks]:
    """New chunks: the texts rewritten, the special pieces as they are."""
    return [
        InputChunks(
            TextChunk(rewrite(chunk.text)) if isinstance(chunk, TextChunk) else chunk
            for chunk in element
        )
        for element in chunks
    ]


class CharacterTable(dict[int, "str | int | None"]):
    """What `str.translate` does to a character, worked out when the character first occurs."""

    def __init__(self, rule: Callable[[str], str | None]) -> None:
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str | None:
        self[code] = replacement = self.rule(chr(code))
        return replacement


_WITHOUT_MARKS = CharacterTable(lambda char: None if unicodedata.category(char) == "Mn" else char)
