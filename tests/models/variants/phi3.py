"""Phi-3. Scaled angles stay within the trained length, which is that of the longest test."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant, merged


def phi3(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "phi3",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "original_max_position_embeddings": N_POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.2,
        "attention_dropout": 0.3,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    return Variant(name, merged(config, options), "decoder", golden)


def long(n_pairs: int, kind: str = "longrope") -> dict[str, Any]:
    return {
        "type": kind,
        "short_factor": [1.0 + 0.25 * i for i in range(n_pairs)],
        "long_factor": [1.0 + 4.0 * i for i in range(n_pairs)],
    }


LONGER = {"max_position_embeddings": 8 * N_POSITIONS}

VARIANTS = [
    phi3("base", golden=True),
    phi3("without-kv-heads", num_key_value_heads=None),
    phi3("window-5", sliding_window=5),
    phi3("window-100", golden=True, sliding_window=100),
    phi3("longrope", golden=True, rope_scaling=long(8), **LONGER),
    # transformers reads the length of the training here only, for this name.
    phi3(
        "su",
        rope_scaling={**long(8, "su"), "original_max_position_embeddings": N_POSITIONS},
        **LONGER,
    ),
    phi3("as-long", rope_scaling=long(8)),
    phi3("partial", partial_rotary_factor=0.75),
    phi3("partial-longrope", partial_rotary_factor=0.5, rope_scaling=long(4), **LONGER),
    phi3("tied", tie_word_embeddings=True),
    phi3("gelu", hidden_act="gelu"),
    phi3("theta", rope_theta=500.0),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"longrope", "su"}]
