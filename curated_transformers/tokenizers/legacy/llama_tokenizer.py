"""Llama's tokenizer: a SentencePiece model whose ids are the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ...repository.repository import Repository
from ..hf_hub import FromHF
from .files import NamedFile, OpenableFile, config_flag, file_name, located, optional_config
from .legacy_tokenizer import AddBosEosPreEncoder
from .sentencepiece_tokenizer import SentencePieceTokenizer, read_processor

if TYPE_CHECKING:
    from curated_tokenizers import SentencePieceProcessor

__all__ = ["LlamaTokenizer"]

Self = TypeVar("Self", bound="LlamaTokenizer")


class LlamaTokenizer(SentencePieceTokenizer, FromHF):
    """Llama's tokenizer.

    ``processor`` is a `curated_tokenizers.SentencePieceProcessor`; ``add_bos_piece`` and
    ``add_eos_piece`` say which of its pieces are put around each input. Raises ``ValueError`` when
    the SentencePiece model lacks a piece that is to be added.
    """

    _REQUIRED_FILES = ("tokenizer.model",)
    _OPTIONAL_FILES = ("tokenizer_config.json",)

    def __init__(
        self,
        *,
        processor: SentencePieceProcessor,
        add_bos_piece: bool = True,
        add_eos_piece: bool = False,
    ) -> None:
        super().__init__(processor=processor)
        for is_added, piece, role in (
            (add_bos_piece, self._bos_piece, "begins"),
            (add_eos_piece, self.eos_piece, "ends"),
        ):
            if is_added and piece is None:
                raise ValueError(f"The SentencePiece model has no piece that {role} a text")
        self.pre_encoder = AddBosEosPreEncoder(
            bos_piece=self._bos_piece if add_bos_piece else None,
            eos_piece=self.eos_piece if add_eos_piece else None,
        )

    @classmethod
    def from_files(
        cls: type[Self],
        *,
        model_file: OpenableFile,
        add_bos_piece: bool = True,
        add_eos_piece: bool = False,
    ) -> Self:
        """Reads `tokenizer.model`.

        Anything with ``open(mode=..., encoding=...)`` is a file: a path, a repository's file.
        Raises ``ValueError`` naming the file for broken content or missing pieces, and the errors
        of ``open``.
        """
        return located(
            file_name(model_file),
            cls,
            processor=read_processor(model_file),
            add_bos_piece=add_bos_piece,
            add_eos_piece=add_eos_piece,
        )

    @classmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads `tokenizer.model` and, if there is one, `tokenizer_config.json`, whose
        `add_bos_token` and `add_eos_token` are used."""
        config = optional_config(repo)
        return cls.from_files(
            model_file=NamedFile(repo, "tokenizer.model"),
            add_bos_piece=config_flag(config, "add_bos_token", True),
            add_eos_piece=config_flag(config, "add_eos_token", False),
        )
