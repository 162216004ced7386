"""Byte-level byte pair encoding, as GPT-2 and RoBERTa have it.

Words are split and their bytes merged by `curated_tokenizers`, very long ones by `byte_pairs`.
Text is not split on spaces beforehand, so that the rule for runs of white space sees them whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .byte_pairs import BytePairMerger, Merge
from .files import OpenableFile, check_ids, file_name, located, read_lines
from .legacy_tokenizer import LegacyTokenizer

if TYPE_CHECKING:
    import curated_tokenizers

__all__ = ["ByteBPETokenizer", "read_merges"]

# From here on the heap is faster.
LONG_WORD_BYTES = 256

# GPT-2's rule (Radford et al. 2019): a run of white space leaves its last character to the next
# word.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# GPT-2 writes each byte as a character: printable ones as themselves, the others, in order, as the
# characters from 256 on.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_TO_CHARACTER = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(256 + place) for place, byte in enumerate(_OTHERS)},
}
_CHARACTER_TO_BYTE = {char: byte for byte, char in _BYTE_TO_CHARACTER.items()}


class ByteBPETokenizer(LegacyTokenizer):
    """Splits texts into words, and their bytes into pieces.

    ``vocab`` are ids by piece, ``merges`` pairs of pieces, best first. ``special_pieces`` are more
    pieces, which ``skip_special_pieces`` leaves out when decoding. Raises ``ValueError`` for ids
    that stand twice and merges with pieces that the vocabulary lacks.
    """

    def __init__(
        self,
        *,
        vocab: dict[str, int],
        merges: Iterable[Sequence[str]],
        special_pieces: Mapping[str, int] | None = None,
    ) -> None:
        special = dict(special_pieces or {})
        self._piece_to_id = check_ids({**vocab, **special})
        self._id_to_piece = {piece_id: piece for piece, piece_id in self._piece_to_id.items()}
        self._special_ids = set(special.values())
        self._merges = [self._checked_merge(merge) for merge in merges]

    @cached_property
    def _processor(self) -> curated_tokenizers.ByteBPEProcessor:
        from curated_tokenizers import ByteBPEProcessor

        name = self._id_to_piece
        return ByteBPEProcessor(
            self._piece_to_id, [(name[left], name[right]) for left, right, _ in self._merges]
        )

    @cached_property
    def _long_words(self) -> BytePairMerger:
        return BytePairMerger(self._merges)

    @cached_property
    def _words(self) -> Any:
        import regex

        return regex.compile(_WORDS)

    def piece_to_id(self, piece: str) -> int | None:
        """The id of a piece; None when the vocabulary lacks it."""
        return self._piece_to_id.get(piece)

    @property
    def eos_piece(self) -> str | None:
        """None: plain byte BPE adds no pieces."""
        return None

    def _encode_text(self, text: str) -> tuple[list[int], list[str]]:
        ids: list[int] = []
        known: dict[str, list[int]] = {}  # texts repeat their words
        for word in self._words.findall(text):
            found = known.get(word)
            if found is None:
                found = known[word] = self._encode_word(word)
            ids += found
        return ids, [self._id_to_piece[piece_id] for piece_id in ids]

    def _encode_word(self, word: str) -> list[int]:
        if 4 * len(word) <= LONG_WORD_BYTES:
            ids: list[int] = self._processor.encode_as_ids(word)
            return ids
        return self._long_words.merge([self._byte_id(byte) for byte in word.encode("utf-8")])

    def _byte_id(self, byte: int) -> int:
        piece_id = self._piece_to_id.get(_BYTE_TO_CHARACTER[byte])
        if piece_id is None:
            raise ValueError(f"Vocabulary does not contain byte '{_BYTE_TO_CHARACTER[byte]}'")
        return piece_id

    def _decode(self, input: list[list[int]], skip_special_pieces: bool) -> list[str]:
        skipped: Iterable[int] = self._special_ids if skip_special_pieces else ()
        return [
            b"".join(self._bytes(piece_id) for piece_id in ids if piece_id not in skipped).decode(
                "utf-8", errors="replace"
            )
            for ids in input
        ]

    def _bytes(self, piece_id: int) -> bytes:
        piece = self._id_to_piece.get(piece_id)
        if piece is None:
            raise ValueError(f"Unknown piece identifier: {piece_id}")
        try:
            return bytes(_CHARACTER_TO_BYTE[char] for char in piece)
        except KeyError:
            return piece.encode("utf-8")  # a special piece, written as such

    def _checked_merge(self, merge: Sequence[str]) -> Merge:
        left, right = merge
        for piece in (left, right, left + right):
            if piece not in self._piece_to_id:
                raise ValueError(
                    f"Merge of '{left}' and '{right}': '{piece}' is not in the vocabulary"
                )
        return self._piece_to_id[left], self._piece_to_id[right], self._piece_to_id[left + right]


def read_merges(file: OpenableFile) -> list[tuple[str, str]]:
    """Reads a `merges.txt`: a line with the version, then a merge a line.

    Raises ``ValueError`` for another version, other lines, and merges that stand twice.
    """
    name, lines = file_name(file), read_lines(file)
    if not lines or not lines[0].startswith("#version: 0.2"):
        first = lines[0] if lines else ""
        raise ValueError(f"{name}: the first line must be `#version: 0.2`, was: {first[:80]}")
    return located(name, _parse_merges, lines)


def _parse_merges(lines: list[str]) -> list[tuple[str, str]]:
    merges: dict[tuple[str, str], int] = {}
    while not lines[-1].strip():
        lines = lines[:-1]
    for number, line in enumerate(lines[1:], start=2):
        items = line.strip(" \t").split(" ")
        if len(items) != 2 or not all(items):
            raise ValueError(f"line {number}: a merge has two items, was: {line[:80]}")
        merge = (items[0], items[1])
        if merge in merges:
            raise ValueError(f"line {number}: the merge of line {merges[merge]} again: {line[:80]}")
        merges[merge] = number
    return list(merges)
