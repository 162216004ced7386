"""WordPiece ("bert") from a GGUF file, where pieces that begin a word are marked instead of those
that go on with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gguf_metadata import CONTROL, GGUFMetadata

if TYPE_CHECKING:
    import tokenizers

BEGINS, CONTINUES = "\u2581", "##"
MAX_WORD_LENGTH = 100


def original_pieces(metadata: GGUFMetadata, pieces: list[str]) -> list[str]:
    """The pieces as WordPiece vocabularies write them."""
    types = metadata.piece_types(len(pieces))
    original = [_original(piece, kind) for piece, kind in zip(pieces, types, strict=True)]
    if len(set(original)) != len(original):
        raise metadata.error("tokens", "holds a piece twice, once as a special one")
    return original


def _original(piece: str, kind: int) -> str:
    # Older files leave other pieces in brackets as they are, too.
    if kind == CONTROL or (piece.startswith("[") and piece.endswith("]") and len(piece) > 2):
        return piece
    if piece.startswith(BEGINS) and piece != BEGINS:
        return piece.removeprefix(BEGINS)
    return CONTINUES + piece


def wordpiece(metadata: GGUFMetadata, pieces: list[str]) -> tokenizers.Tokenizer:
    """The engine, as yet without special pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    unknown = metadata.piece_id("unknown", len(pieces), 100)
    if unknown is None:
        raise metadata.error("unknown_token_id", "is missing")
    engine = Tokenizer(
        models.WordPiece(
            {piece: index for index, piece in enumerate(pieces)},
            unk_token=pieces[unknown],
            max_input_chars_per_word=MAX_WORD_LENGTH,
            continuing_subword_prefix=CONTINUES,
        )
    )
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=metadata.get("normalizer.lowercase", bool, True),
        strip_accents=metadata.get("normalizer.strip_accents", bool, True),
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(CONTINUES, cleanup=True)
    return engine
