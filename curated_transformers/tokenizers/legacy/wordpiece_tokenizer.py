"""WordPiece: words are split greedily into the longest pieces of a vocabulary.

The splitting is our own: that of `curated_tokenizers` tries every prefix of a word however long it
is, and does not end when the vocabulary has the bare piece `##`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from .files import OpenableFile, check_ids, read_lines
from .legacy_tokenizer import LegacyTokenizer

__all__ = ["VocabularyLines", "WordPieceTokenizer", "read_vocab_lines"]

CONTINUATION = "##"
UNMATCHED = -1

Pieces = tuple[list[int], list[str]]


class VocabularyLines(dict[str, int]):
    """The vocabulary of a file with a piece a line: the id is the number of the line.

    Of lines that repeat a piece the last counts, and an empty one is no piece, as in the original
    programs; the others keep their ids. ``lines`` are all of them.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__((line, number) for number, line in enumerate(lines))
        self.lines = lines


def read_vocab_lines(file: OpenableFile) -> VocabularyLines:
    """Reads a `vocab.txt` without the space around pieces. ``ValueError`` when it is not UTF-8."""
    return VocabularyLines([line.strip() for line in read_lines(file)])


class WordPieceTokenizer(LegacyTokenizer):
    """Splits texts on spaces, and words into pieces.

    ``vocab`` are ids by piece; pieces that begin with ``##`` continue a word. ``special_pieces``
    are more of them, which ``skip_special_pieces`` leaves out when decoding. What matches no piece
    keeps its text and gets the id -1. Raises ``ValueError`` when ids are missing or stand twice.
    """

    def __init__(self, *, vocab: dict[str, int], special_pieces: Mapping[str, int] | None) -> None:
        special = dict(special_pieces or {})
        self._piece_to_id: dict[str, int] = {**vocab, **special}
        if isinstance(vocab, VocabularyLines) and special.items() <= vocab.items():
            self._id_to_piece = list(vocab.lines)
        else:
            self._id_to_piece = _pieces_by_id(self._piece_to_id)
        self._special_ids = set(special.values())
        self._initial = {
            piece: piece_id
            for piece, piece_id in self._piece_to_id.items()
            if not piece.startswith(CONTINUATION)
        }
        self._continuing = {
            piece[len(CONTINUATION) :]: piece_id
            for piece, piece_id in self._piece_to_id.items()
            if piece.startswith(CONTINUATION)
        }
        self._longest = max(map(len, self._piece_to_id), default=0)

    def piece_to_id(self, piece: str) -> int | None:
        """The id of a piece; None when the vocabulary lacks it."""
        return self._piece_to_id.get(piece) if piece else None

    @property
    def eos_piece(self) -> str | None:
        """None: plain WordPiece adds no pieces."""
        return None

    def _encode_text(self, text: str) -> Pieces:
        ids: list[int] = []
        pieces: list[str] = []
        known: dict[str, Pieces] = {}  # texts repeat their words
        for word in text.split(" "):
            found = known.get(word)
            if found is None:
                found = known[word] = self._encode_word(word)
            ids += found[0]
            pieces += found[1]
        return ids, pieces

    def _encode_word(self, word: str) -> Pieces:
        ids: list[int] = []
        pieces: list[str] = []
        start, prefix, vocab = 0, "", self._initial
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                piece_id = vocab.get(word[start:end])
                if piece_id is not None:
                    break
            else:
                piece_id, end = UNMATCHED, len(word)
            ids.append(piece_id)
            pieces.append(prefix + word[start:end])
            start, prefix, vocab = end, CONTINUATION, self._continuing
        return ids, pieces

    def _decode(self, input: list[list[int]], skip_special_pieces: bool) -> list[str]:
        skipped: Iterable[int] = self._special_ids if skip_special_pieces else ()
        return [
            "".join(self._written(piece_id) for piece_id in ids if piece_id not in skipped).strip()
            for ids in input
        ]

    def _written(self, piece_id: int) -> str:
        if not 0 <= piece_id < len(self._id_to_piece):
            raise ValueError(f"Unknown piece identifier: {piece_id}")
        piece = self._id_to_piece[piece_id]
        is_initial = not piece.startswith(CONTINUATION)
        return f" {piece}" if is_initial else piece[len(CONTINUATION) :]


def _pieces_by_id(vocab: dict[str, int]) -> list[str]:
    used = set(vocab.values())
    unused = (piece_id for piece_id in range(max(used, default=-1) + 1) if piece_id not in used)
    first = list(islice(unused, 10))
    if first:
        raise ValueError(f"WordPiece vocabulary contains unused indices: {first}")
    return sorted(check_ids(vocab), key=vocab.__getitem__)
