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

# Angles that turn 32 times and once within 256 places are at pairs 0.1 and 2.3 of base 500000.
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
# The length of the training is that of the longest test; beyond it the angles are others.
LONGROPE = {
    "rope_type": "longrope",
    "factor": 8.0,
    "original_max_position_embeddings": N_POSITIONS,
    "short_factor": [1.0 + 0.25 * i for i in range(8)],
    "long_factor": [1.0 + 4.0 * i for i in range(8)],
}


def scaled(name: str, rope: dict[str, Any], golden: bool = False, **options: Any) -> Variant:
    theta = {"rope_theta": 500000.0} | options
    return llama(name, golden, rope_scaling=rope, **theta)


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
    scaled("dynamic", {"type": "dynamic", "factor": 4.0}),
    scaled("yarn", YARN, golden=True),
    scaled("yarn-new-key-wins", YARN | {"type": "linear"}),
    scaled("yarn-by-lengths", YARN | {"factor": N_POSITIONS / 256}),
    scaled("yarn-attention-factor", YARN | {"attention_factor": 0.7}, golden=True),
    scaled("yarn-mscale", YARN | {"mscale": 0.5, "mscale_all_dim": 1.5}),
    scaled("yarn-one-mscale", YARN | {"mscale": 0.5}),
    scaled("yarn-betas", YARN | {"beta_fast": 8, "beta_slow": 2}, rope_theta=10000.0),
    scaled("yarn-smooth", YARN | {"truncate": False}),
    scaled("yarn-small-factor", YARN | {"factor": 0.5}),
    scaled("yarn-narrow-ramp", YARN | {"beta_fast": 1, "beta_slow": 1, "truncate": False}),
    scaled("longrope", LONGROPE, golden=True),
    scaled("longrope-new-key-wins", LONGROPE | {"type": "su"}),
    scaled("longrope-attention-factor", LONGROPE | {"attention_factor": 0.7}),
    scaled("longrope-factor-1", LONGROPE | {"factor": 1.0}),
    llama("gelu", hidden_act="gelu"),
    llama("gelu-new", hidden_act="gelu_new"),
    llama("gelu-fast", hidden_act="gelu_fast"),
    llama("relu", hidden_act="relu"),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [
    {"mha", "without-kv-heads"},
    {"theta", "theta-new", "dynamic"},
    {"yarn", "yarn-new-key-wins", "yarn-one-mscale"},
    {"longrope", "longrope-new-key-wins"},
    {"llama3", "llama3-new"},
    {"linear", "both-styles"},
    {"gelu-new", "gelu-fast"},
]
