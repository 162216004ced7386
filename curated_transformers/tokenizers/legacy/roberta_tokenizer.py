"""RoBERTa's tokenizer: byte-level byte pair encoding between two special pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ...repository.repository import Repository
from ..hf_hub import FromHF
from .bbpe_tokenizer import ByteBPETokenizer, read_merges
from .files import NamedFile, OpenableFile, file_name, located, read_vocab_json
from .legacy_tokenizer import AddBosEosPreEncoder, DropPiecesPreDecoder

__all__ = ["RoBERTaTokenizer"]

Self = TypeVar("Self", bound="RoBERTaTokenizer")

# What the special pieces are called; those that exist are left out when decoding.
SPECIAL_PIECES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


class RoBERTaTokenizer(ByteBPETokenizer, FromHF):
    """RoBERTa's tokenizer.

    ``vocab`` are ids by piece, ``merges`` pairs of pieces, best first, ``special_pieces`` more
    pieces. ``bos_piece`` and ``eos_piece`` are put around each input. Raises ``ValueError`` when
    one of them is missing, and as ``ByteBPETokenizer`` does. Other than in transformers, special
    pieces written out in a text are text.
    """

    _REQUIRED_FILES = ("vocab.json", "merges.txt")

    def __init__(
        self,
        *,
        vocab: dict[str, int],
        merges: Iterable[Sequence[str]],
        special_pieces: Mapping[str, int] | None = None,
        bos_piece: str = "<s>",
        eos_piece: str = "</s>",
    ) -> None:
        super().__init__(vocab=vocab, merges=merges, special_pieces=special_pieces)
        for piece in (bos_piece, eos_piece):
            if self.piece_to_id(piece) is None:
                raise ValueError(
                    f"RoBERTa piece encoder vocabulary doesn't contain '{piece}' piece"
                )
        self._eos_piece = eos_piece
        self._special_ids |= {
            self._piece_to_id[piece]
            for piece in (bos_piece, eos_piece, *SPECIAL_PIECES)
            if piece in self._piece_to_id
        }
        self.pre_encoder = AddBosEosPreEncoder(bos_piece=bos_piece, eos_piece=eos_piece)
        self.pre_decoder = DropPiecesPreDecoder(
            self._piece_to_id[piece] for piece in (bos_piece, eos_piece)
        )

    @classmethod
    def from_files(
        cls: type[Self],
        *,
        vocab_file: OpenableFile,
        merges_file: OpenableFile,
        bos_piece: str = "<s>",
        eos_piece: str = "</s>",
    ) -> Self:
        """Reads `vocab.json` and `merges.txt`.

        Anything with ``open(mode=..., encoding=...)`` is a file: a path, a repository's file.
        Raises ``ValueError`` naming the file for broken content or missing pieces, and the errors
        of ``open``.
        """
        vocab, merges = read_vocab_json(vocab_file), read_merges(merges_file)
        return located(
            f"{file_name(vocab_file)}, {file_name(merges_file)}",
            cls,
            vocab=vocab,
            merges=merges,
            bos_piece=bos_piece,
            eos_piece=eos_piece,
        )

    @classmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads `vocab.json` and `merges.txt`; the tokenizer config is not used."""
        return cls.from_files(
            vocab_file=NamedFile(repo, "vocab.json"), merges_file=NamedFile(repo, "merges.txt")
        )

    @property
    def eos_piece(self) -> str | None:
        """The piece that ends an input."""
        return self._eos_piece
