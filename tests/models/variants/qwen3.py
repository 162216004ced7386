"""Qwen3."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant, merged


def qwen3(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "hidden_act": "silu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "attention_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": 28,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    return Variant(name, merged(config, options), "decoder", golden)


LOCAL = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}

VARIANTS = [
    qwen3("base", golden=True),
    qwen3("default-width", head_dim=..., num_attention_heads=2, num_key_value_heads=1),
    qwen3("attention-bias", golden=True, attention_bias=True),
    qwen3("large-eps", rms_norm_eps=0.05),
    qwen3("local", golden=True, **LOCAL),
    qwen3("tied", tie_word_embeddings=True),
    qwen3("theta", rope_theta=500.0),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING: list[set[str]] = []
