"""Tokenizers: text to piece ids and back, chat templates."""

from .auto_tokenizer import AutoTokenizer
from .base import PiecesWithIds, TokenizerBase
from .chunks import InputChunks, SpecialPieceChunk, TextChunk
from .hf_hub import FromHF
from .tokenizer import Tokenizer

__all__ = [
    "AutoTokenizer",
    "FromHF",
    "InputChunks",
    "PiecesWithIds",
    "SpecialPieceChunk",
    "TextChunk",
    "Tokenizer",
    "TokenizerBase",
]
