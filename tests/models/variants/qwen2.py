"""Qwen2."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant, merged


def qwen2(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "sliding_window": 5,
        "max_window_layers": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    return Variant(name, merged(config, options), "decoder", golden)


MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

VARIANTS = [
    qwen2("base", golden=True),
    qwen2("all-local", golden=True, use_sliding_window=True),
    qwen2("upper-local", golden=True, use_sliding_window=True, max_window_layers=1),
    qwen2("none-local", use_sliding_window=True, max_window_layers=3),
    qwen2("default-layers", use_sliding_window=True, max_window_layers=...),
    qwen2("null-window", use_sliding_window=True, sliding_window=None),
    qwen2("mixed", use_sliding_window=True, sliding_window=64, layer_types=MIXED),
    qwen2("window-100", use_sliding_window=True, sliding_window=100),
    qwen2("layers-win", layer_types=["full_attention"] * 3, use_sliding_window=True),
    qwen2("theta", rope_theta=500.0),
    qwen2("tied", tie_word_embeddings=True),
    qwen2("without-kv-heads", num_key_value_heads=None),
    qwen2("gelu", hidden_act="gelu"),
    qwen2(
        "yarn",
        rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    ),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"base", "none-local", "default-layers", "null-window", "layers-win"}]
