"""SentencePiece's BPE ("llama") from a GGUF file: pieces with scores.

SentencePiece merges the two neighbours whose joint piece has the highest score. The `tokenizers`
library wants a list of pairs instead, so every piece is taken apart in all ways that two other
pieces allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gguf_metadata import BYTE, NORMAL, GGUFMetadata

if TYPE_CHECKING:
    import tokenizers

SPACE = "\u2581"


def sentencepiece_bpe(metadata: GGUFMetadata, pieces: list[str]) -> tokenizers.Tokenizer:
    """The engine, as yet without special pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    types = metadata.piece_types(len(pieces))
    scores = metadata.numbers("scores", len(pieces))
    has_prefix = metadata.get("add_space_prefix", bool, True)
    unknown = metadata.piece_id("unknown", len(pieces), 0)
    engine = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)},
            _merges(pieces, types, scores),
            unk_token=None if unknown is None else pieces[unknown],
            fuse_unk=True,
            byte_fallback=BYTE in types,
        )
    )
    prefix = [normalizers.Prepend(SPACE)] if has_prefix else []
    engine.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    engine.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if has_prefix else []),
        ]
    )
    return engine


def _merges(pieces: list[str], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """The pairs that make a piece, best piece first.

    Of several pairs that make the same piece the one with the longest left half comes first: of
    equal characters in a row the left ones are merged first, so that what remains is on the right.
    """
    normal = {piece for piece, kind in zip(pieces, types, strict=True) if kind == NORMAL}
    ranked = sorted(
        (index for index, piece in enumerate(pieces) if len(piece) > 1 and piece in normal),
        key=lambda index: -scores[index],
    )
    return [
        (piece[:end], piece[end:])
        for piece in map(pieces.__getitem__, ranked)
        for end in range(len(piece) - 1, 0, -1)
        if piece[:end] in normal and piece[end:] in normal
    ]
