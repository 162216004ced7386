"""XLM-RoBERTa's tokenizer: a SentencePiece model with a piece for padding put before its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ...repository.repository import Repository
from ..hf_hub import FromHF
from .files import NamedFile, OpenableFile, file_name, located
from .legacy_tokenizer import AddBosEosPreEncoder, DropPiecesPreDecoder
from .sentencepiece_tokenizer import PieceNumbers, SentencePieceTokenizer, read_processor

if TYPE_CHECKING:
    from curated_tokenizers import SentencePieceProcessor

__all__ = ["XLMRTokenizer"]

Self = TypeVar("Self", bound="XLMRTokenizer")

OFFSET = 1
BOS, PADDING, EOS, UNKNOWN = range(4)


class XLMRTokenizer(SentencePieceTokenizer, FromHF):
    """XLM-RoBERTa's tokenizer.

    ``processor`` is a `curated_tokenizers.SentencePieceProcessor`, whose pieces for the beginning
    and the end of a text are put around each input. Raises ``ValueError`` unless these two and the
    unknown piece are its first three, because then their numbers would collide with others.
    """

    _REQUIRED_FILES = ("sentencepiece.bpe.model",)

    def __init__(self, *, processor: SentencePieceProcessor) -> None:
        super().__init__(processor=processor)
        own = (processor.bos_id(), processor.eos_id(), processor.unk_id())
        if sorted(own) != [0, 1, 2]:
            raise ValueError(
                "The special pieces (bos, eos, unknown) of an XLM-R SentencePiece model must be "
                f"its first three, were {own}"
            )
        self._numbers = PieceNumbers(
            offset=OFFSET,
            moved=dict(zip(own, (BOS, EOS, UNKNOWN), strict=True)),
            added={PADDING: "<pad>", len(processor) + OFFSET: "<mask>"},
        )
        self.pre_encoder = AddBosEosPreEncoder(bos_piece=self._bos_piece, eos_piece=self.eos_piece)
        self.pre_decoder = DropPiecesPreDecoder((BOS, EOS))

    @classmethod
    def from_files(cls: type[Self], *, model_file: OpenableFile) -> Self:
        """Reads `sentencepiece.bpe.model`.

        Anything with ``open(mode=..., encoding=...)`` is a file: a path, a repository's file.
        Raises ``ValueError`` naming the file for broken content, and the errors of ``open``.
        """
        return located(file_name(model_file), cls, processor=read_processor(model_file))

    @classmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads `sentencepiece.bpe.model`."""
        return cls.from_files(model_file=NamedFile(repo, "sentencepiece.bpe.model"))
