"""CamemBERT's tokenizer: a SentencePiece model whose pieces come after four others."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ...repository.repository import Repository
from ..hf_hub import FromHF
from .files import NamedFile, OpenableFile, file_name, located
from .legacy_tokenizer import AddBosEosPreEncoder, DropPiecesPreDecoder
from .sentencepiece_tokenizer import PieceNumbers, SentencePieceTokenizer, read_processor

if TYPE_CHECKING:
    from curated_tokenizers import SentencePieceProcessor

__all__ = ["CamemBERTTokenizer"]

Self = TypeVar("Self", bound="CamemBERTTokenizer")

OFFSET = 4
UNKNOWN = 3


class CamemBERTTokenizer(SentencePieceTokenizer, FromHF):
    """CamemBERT's tokenizer.

    ``processor`` is a `curated_tokenizers.SentencePieceProcessor`. ``bos_piece`` and ``eos_piece``
    are put around each input; ``ValueError`` when the SentencePiece model lacks one of them.
    """

    _REQUIRED_FILES = ("sentencepiece.bpe.model",)

    def __init__(
        self,
        *,
        processor: SentencePieceProcessor,
        bos_piece: str = "<s>",
        eos_piece: str = "</s>",
    ) -> None:
        super().__init__(processor=processor)
        self._numbers = PieceNumbers(
            offset=OFFSET,
            moved={processor.unk_id(): UNKNOWN},
            added={
                0: "<s>NOTUSED",
                1: "<pad>",
                2: "</s>NOTUSED",
                processor.unk_id() + OFFSET: "<unk>NOTUSED",
                len(processor) + OFFSET: "<mask>",
            },
        )
        missing = [
            piece for piece in (bos_piece, eos_piece) if processor.piece_to_id(piece) is None
        ]
        if missing:
            raise ValueError(
                f"The SentencePiece model doesn't contain the special pieces {missing}"
            )
        self._eos_piece = eos_piece
        self.pre_encoder = AddBosEosPreEncoder(bos_piece=bos_piece, eos_piece=eos_piece)
        self.pre_decoder = DropPiecesPreDecoder(map(self._special_piece_id, (bos_piece, eos_piece)))

    @classmethod
    def from_files(
        cls: type[Self],
        *,
        model_file: OpenableFile,
        bos_piece: str = "<s>",
        eos_piece: str = "</s>",
    ) -> Self:
        """Reads `sentencepiece.bpe.model`.

        Anything with ``open(mode=..., encoding=...)`` is a file: a path, a repository's file.
        Raises ``ValueError`` naming the file for broken content or missing pieces, and the errors
        of ``open``.
        """
        return located(
            file_name(model_file),
            cls,
            processor=read_processor(model_file),
            bos_piece=bos_piece,
            eos_piece=eos_piece,
        )

    @classmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads `sentencepiece.bpe.model`."""
        return cls.from_files(model_file=NamedFile(repo, "sentencepiece.bpe.model"))

    @property
    def eos_piece(self) -> str | None:
        """The piece that ends an input."""
        return self._eos_piece
