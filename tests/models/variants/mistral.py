"""Mistral. Windows are shorter than the sequences, and end in and between pages of the cache."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant, merged


def mistral(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "mistral",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    return Variant(name, merged(config, options), "decoder", golden)


VARIANTS = [
    mistral("default-window"),
    mistral("no-window", sliding_window=None),
    mistral("window-5", golden=True, sliding_window=5),
    mistral("window-64", sliding_window=64, head_dim=24),
    mistral("window-100", golden=True, sliding_window=100),
    mistral("window-2", sliding_window=2),  # of 1, transformers' cache keeps everything
    mistral("default-kv-heads", num_key_value_heads=..., num_attention_heads=16),
    mistral("tied", golden=True, sliding_window=5, tie_word_embeddings=True, rope_theta=500.0),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"default-window", "no-window"}]
