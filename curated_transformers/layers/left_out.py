"""The names of torch building blocks that programs written for torch may ask for."""

from __future__ import annotations

from typing import NoReturn

BUILDING_BLOCKS = frozenset(
    {
        "ALBERTLayerGroup",
        "AttentionLinearBiases",
        "AttentionScorer",
        "DecoderLayer",
        "EmbeddingDropouts",
        "EmbeddingLayerNorms",
        "EncoderLayer",
        "PointwiseFeedForward",
        "QueryKeyRotaryEmbeddings",
        "RMSNorm",
        "RotaryEmbeddings",
        "ScaledDotProductAttention",
        "SelfAttention",
        "SinusoidalPositionalEmbedding",
        "TransformerDropouts",
        "TransformerEmbeddings",
        "TransformerLayerNorms",
    }
)


def refuse(module: str, name: str) -> NoReturn:
    """Says of a building block that it is left out, of another name that there is none."""
    if name in BUILDING_BLOCKS:
        # An AttributeError's text would not be seen: `from layers import ...` replaces it.
        raise ImportError(
            f"cannot import name {name!r} from {module!r}: torch building blocks are not part of "
            "this package, whose models run as a whole in the core; see docs/api.md"
        )
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
