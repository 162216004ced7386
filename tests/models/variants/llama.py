"""Llama."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def llama(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "llama",
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
    return Variant(name, config | options, "decoder", golden)


# With heads of 16 and base 500000 the wavelengths are 6, 32, 167, 861 ...: with these bounds there
# are angles on each side of both.
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
WITHOUT_LENGTH = {
    key: value for key, value in LLAMA3_SCALING.items() if key != "original_max_position_embeddings"
}

VARIANTS = [
    llama("gqa", golden=True),
    llama("mha", num_key_value_heads=4),
    llama("mqa", num_key_value_heads=1),
    llama("without-kv-heads", num_key_value_heads=None),
    llama("odd-heads", num_attention_heads=6, num_key_value_heads=3, hidden_size=60, head_dim=10),
    llama("wider-heads", golden=True, head_dim=24),
    llama("narrower-heads", head_dim=6),
    llama("heads-of-128", head_dim=128, num_attention_heads=2, num_key_value_heads=1),
    llama("one-narrow-layer", hidden_size=36, num_attention_heads=2, num_hidden_layers=1),
    llama("tied", golden=True, tie_word_embeddings=True),
    llama("attention-bias", attention_bias=True),
    llama("mlp-bias", mlp_bias=True),
    llama("all-biases", golden=True, attention_bias=True, mlp_bias=True, rms_norm_eps=0.05),
    llama("large-eps", rms_norm_eps=0.05),
    llama("theta", rope_theta=500000.0),
    llama("theta-new", rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    llama("linear", rope_scaling={"type": "linear", "factor": 4.0}),
    llama(
        "linear-new",
        golden=True,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0},
    ),
    llama("llama3", rope_theta=500000.0, rope_scaling=LLAMA3_SCALING),
    llama("llama3-new", golden=True, rope_parameters={**LLAMA3_SCALING, "rope_theta": 500000.0}),
    llama("llama3-without-length", golden=True, rope_theta=500000.0, rope_scaling=WITHOUT_LENGTH),
    llama(
        "both-styles",
        golden=True,
        rope_scaling={"rope_type": "linear", "factor": 4.0},
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
    llama("gelu", hidden_act="gelu"),
    llama("gelu-new", hidden_act="gelu_new"),
    llama("gelu-fast", hidden_act="gelu_fast"),
    llama("relu", hidden_act="relu"),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [
    {"mha", "without-kv-heads"},
    {"theta", "theta-new"},
    {"llama3", "llama3-new"},
    {"linear", "both-styles"},
    {"gelu-new", "gelu-fast"},
]
