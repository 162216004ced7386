"""Gemma 1 to 3. Widths are no squares, so that the scale of the embeddings is rounded in half
precision, and weights of norms are those that are stored: less 1."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant, merged

COMMON = {
    "hidden_size": 72,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": N_PIECES,
    "max_position_embeddings": N_POSITIONS,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "float32",
}
CAPS = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0, "query_pre_attn_scalar": 20}
LINEAR = {"rope_type": "linear", "factor": 8.0}


def gemma(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", **COMMON}
    return Variant(name, merged(config, options), "decoder", golden)


def gemma2(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {"model_type": "gemma2", "sliding_window": 64, **CAPS, **COMMON}
    return Variant(name, merged(config, options), "decoder", golden)


def gemma3(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 16,
        "sliding_window": 5,
        "sliding_window_pattern": 3,
        **COMMON,
    }
    return Variant(name, merged(config, options), "decoder", golden)


def types(pattern: str) -> list[str]:
    return [{"f": "full_attention", "s": "sliding_attention"}[letter] for letter in pattern]


VARIANTS = [
    gemma("base", golden=True),
    gemma("legacy-gelu", hidden_act="gelu"),
    gemma("relu", hidden_act="relu"),
    gemma("attention-bias", attention_bias=True),
    gemma("untied", tie_word_embeddings=False),
    gemma("mqa", num_key_value_heads=1),
    gemma("wide-heads", head_dim=..., num_attention_heads=1, num_key_value_heads=1),
    gemma("theta", rope_theta=500.0),
    gemma2("base", golden=True),
    gemma2("default-caps", attn_logit_softcapping=..., final_logit_softcapping=...),
    gemma2("no-attention-cap", golden=True, attn_logit_softcapping=None),
    gemma2("no-logit-cap", final_logit_softcapping=None),
    gemma2("default-scale", query_pre_attn_scalar=...),
    gemma2("window-5", golden=True, sliding_window=5),
    gemma2("window-100", sliding_window=100, hidden_activation="silu"),
    gemma2("all-global", layer_types=types("fff")),
    gemma2("all-local", layer_types=types("sss")),
    gemma2("default-window", sliding_window=...),
    gemma3("base", golden=True),
    gemma3("window-100", sliding_window=100),
    gemma3("default-pattern", sliding_window_pattern=...),
    gemma3("types-win", golden=True, layer_types=types("fss")),
    gemma3("all-global", layer_types=types("fff")),
    gemma3("all-local", layer_types=types("sss")),
    gemma3("logit-cap", final_logit_softcapping=10.0),
    gemma3("bases", rope_theta=500.0, rope_local_base_freq=50.0),
    gemma3("linear", golden=True, rope_theta=500.0, rope_scaling=LINEAR),
    gemma3(
        "linear-new",
        rope_parameters={
            "full_attention": {**LINEAR, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    gemma3("attention-bias", attention_bias=True),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [
    {"base", "legacy-gelu"},
    {"all-global", "default-window"},
    {"linear", "linear-new"},
    {"default-pattern", "all-local"},
]
