"""BERT's tokenizer: text is cleaned, split into words and punctuation, and words into pieces.

The reference is the tokenizer that BERT was published with; `transformers` has it as BertTokenizer.
Three things differ from the latter: lower case is Python's (see DefaultNormalizer), as it was in
the former; special pieces written out in a text are text; a text that begins with a continuation is
decoded without its mark.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import ClassVar, TypeVar

from ...repository.repository import Repository
from ..chunks import InputChunks
from ..hf_hub import FromHF
from ..spacing import clean_up_spaces
from .files import (
    NamedFile,
    OpenableFile,
    config_flag,
    config_piece,
    file_name,
    located,
    optional_config,
)
from .legacy_tokenizer import (
    AddBosEosPreEncoder,
    CharacterTable,
    DefaultNormalizer,
    DropPiecesPreDecoder,
    Normalizer,
    PostDecoder,
    PreEncoder,
    map_texts,
)
from .wordpiece_tokenizer import UNMATCHED, Pieces, WordPieceTokenizer, read_vocab_lines

__all__ = ["BERTNormalizer", "BERTPostDecoder", "BERTPreEncoder", "BERTTokenizer"]

Self = TypeVar("Self", bound="BERTTokenizer")

# A longer word is unknown, as in the original.
MAX_WORD_CHARACTERS = 100

# What the special pieces are called; those that exist are left out when decoding.
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_IDEOGRAPHS = re.compile(
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)


class BERTNormalizer(Normalizer):
    """Drops control characters, makes every kind of white space a space, then lower case and
    accents if asked for, and sets each Chinese character apart as a word."""

    def __init__(
        self,
        *,
        lowercase: bool = False,
        strip_accents: bool = False,
        tokenize_chinese_chars: bool = True,
    ) -> None:
        self._default = DefaultNormalizer(lowercase=lowercase, strip_accents=strip_accents)
        self.tokenize_chinese_chars = tokenize_chinese_chars

    def __call__(self, chunks: Iterable[InputChunks]) -> list[InputChunks]:
        return map_texts(chunks, self._normalize)

    def _normalize(self, text: str) -> str:
        text = self._default.normalize(text.translate(_CLEAN))
        return _IDEOGRAPHS.sub(r" \g<0> ", text) if self.tokenize_chinese_chars else text


class BERTPreEncoder(PreEncoder):
    """Sets punctuation apart from words, and puts the special pieces around an input."""

    def __init__(self, *, bos_piece: str, eos_piece: str) -> None:
        self._add_bos_eos = AddBosEosPreEncoder(bos_piece=bos_piece, eos_piece=eos_piece)

    def __call__(self, chunks: Iterable[InputChunks]) -> list[InputChunks]:
        return self._add_bos_eos(map_texts(chunks, _separate_punctuation))


class BERTPostDecoder(PostDecoder):
    """Removes the spaces before punctuation."""

    def __call__(self, output: Iterable[str]) -> list[str]:
        return [clean_up_spaces(text) for text in output]


class BERTTokenizer(WordPieceTokenizer, FromHF):
    """BERT's tokenizer.

    ``vocab`` are ids by piece, ``special_pieces`` more of them. ``bos_piece`` and ``eos_piece`` are
    put around each input, ``unk_piece`` stands for words that the vocabulary cannot write or that
    are longer than 100 characters. ``strip_accents`` None means: if the text is lower-cased.
    Raises ``ValueError`` when one of the three pieces is missing, or ids are.
    """

    _REQUIRED_FILES = ("vocab.txt",)
    _OPTIONAL_FILES = ("tokenizer_config.json",)
    #: The pieces of a repository whose config does not name them.
    _PIECES: ClassVar[dict[str, str]] = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
    }

    def __init__(
        self,
        *,
        vocab: dict[str, int],
        special_pieces: Mapping[str, int] | None = None,
        bos_piece: str = "[CLS]",
        eos_piece: str = "[SEP]",
        unk_piece: str = "[UNK]",
        lowercase: bool = False,
        strip_accents: bool | None = False,
        tokenize_chinese_chars: bool = True,
    ) -> None:
        super().__init__(vocab=vocab, special_pieces=special_pieces)
        missing = [
            piece for piece in (bos_piece, eos_piece, unk_piece) if self.piece_to_id(piece) is None
        ]
        if missing:
            raise ValueError(f"BERT vocabulary doesn't contain the special pieces {missing}")
        self._eos_piece = eos_piece
        self._unknown: Pieces = ([self._piece_to_id[unk_piece]], [unk_piece])
        self._special_ids |= {
            self._piece_to_id[piece]
            for piece in (bos_piece, eos_piece, unk_piece, *SPECIAL_PIECES)
            if piece in self._piece_to_id
        }
        self.normalizer = BERTNormalizer(
            lowercase=lowercase,
            strip_accents=lowercase if strip_accents is None else strip_accents,
            tokenize_chinese_chars=tokenize_chinese_chars,
        )
        self.pre_encoder = BERTPreEncoder(bos_piece=bos_piece, eos_piece=eos_piece)
        self.pre_decoder = DropPiecesPreDecoder(
            self._piece_to_id[piece] for piece in (bos_piece, eos_piece)
        )
        self.post_decoder = BERTPostDecoder()

    @classmethod
    def from_files(
        cls: type[Self],
        *,
        vocab_file: OpenableFile,
        bos_piece: str = "[CLS]",
        eos_piece: str = "[SEP]",
        unk_piece: str = "[UNK]",
        lowercase: bool = False,
        strip_accents: bool | None = False,
    ) -> Self:
        """Reads `vocab.txt`: a piece a line, UTF-8; the number of the line is the id.

        Anything with ``open(mode=..., encoding=...)`` is a file: a path, a repository's file.
        Raises ``ValueError`` naming the file for broken content or missing pieces, and the errors
        of ``open``.
        """
        return located(
            file_name(vocab_file),
            cls,
            vocab=read_vocab_lines(vocab_file),
            bos_piece=bos_piece,
            eos_piece=eos_piece,
            unk_piece=unk_piece,
            lowercase=lowercase,
            strip_accents=strip_accents,
        )

    @classmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads `vocab.txt` and, if there is one, `tokenizer_config.json`.

        Accents are stripped if the config says so, or if it does not say and the text is
        lower-cased. Without `do_lower_case` it is not, other than in transformers.
        """
        config = optional_config(repo)
        pieces = {key: config_piece(config, key, name) for key, name in cls._PIECES.items()}
        file = NamedFile(repo, "vocab.txt")
        vocab = read_vocab_lines(file)
        special = (pieces["pad_token"], pieces["mask_token"])
        return located(
            file.path,
            cls,
            vocab=vocab,
            special_pieces={piece: vocab[piece] for piece in special if piece in vocab},
            bos_piece=pieces["cls_token"],
            eos_piece=pieces["sep_token"],
            unk_piece=pieces["unk_token"],
            lowercase=config_flag(config, "do_lower_case", False),
            strip_accents=config_flag(config, "strip_accents", None),
            tokenize_chinese_chars=config_flag(config, "tokenize_chinese_chars", True),
        )

    @property
    def eos_piece(self) -> str | None:
        """The piece that ends an input."""
        return self._eos_piece

    def _encode_word(self, word: str) -> Pieces:
        if len(word) > MAX_WORD_CHARACTERS:
            return self._unknown
        found = super()._encode_word(word)
        return self._unknown if UNMATCHED in found[0] else found


class MPNetTokenizer(BERTTokenizer):
    """MPNet's tokenizer: BERT's with other special pieces. Loaded with ``from_repo``."""

    _PIECES: ClassVar[dict[str, str]] = {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "[UNK]",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }


def _separate_punctuation(text: str) -> str:
    return " ".join(
        word if word.isalnum() else " ".join(word.translate(_APART).split())
        for word in text.split(" ")
    )


def _cleaned(char: str) -> str | None:
    if char in "\t\n\r":
        return " "
    if char == "\ufffd" or unicodedata.category(char).startswith("C"):
        return None
    return " " if char.isspace() else char


def _apart(char: str) -> str:
    is_ascii_symbol = "!" <= char <= "~" and not char.isalnum()
    is_punctuation = is_ascii_symbol or unicodedata.category(char).startswith("P")
    return f" {char} " if is_punctuation else char


_CLEAN = CharacterTable(_cleaned)
_APART = CharacterTable(_apart)
