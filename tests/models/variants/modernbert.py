"""ModernBERT."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def modernbert(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "modernbert",
        "hidden_size": 64,
        "intermediate_size": 44,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "hidden_activation": "gelu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "norm_eps": 1e-5,
        "local_attention": 24,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "encoder", golden, names)


def ropes(around: dict[str, Any], near: dict[str, Any]) -> dict[str, Any]:
    return {"full_attention": around, "sliding_attention": near}


FULL, NEAR = "full_attention", "sliding_attention"
BASES = {"global_rope_theta": 700.0, "local_rope_theta": 90.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}

VARIANTS = [
    modernbert("base", golden=True),
    modernbert("every-third", global_attn_every_n_layers=3),
    modernbert("every-second", global_attn_every_n_layers=2),
    modernbert("all-global", global_attn_every_n_layers=1),
    modernbert("layer-types", golden=True, layer_types=[NEAR, NEAR, FULL, NEAR, FULL]),
    modernbert("layer-types-every-second", layer_types=[FULL, NEAR, FULL, NEAR, FULL]),
    modernbert("all-local", layer_types=[NEAR] * 5),
    modernbert("window-128", local_attention=128),
    modernbert("odd-window", local_attention=25),
    modernbert("narrow-window", local_attention=6),
    modernbert("bases", **BASES),
    modernbert(
        "bases-new",
        rope_parameters=ropes(
            {"rope_type": "default", "rope_theta": 700.0},
            {"rope_type": "default", "rope_theta": 90.0},
        ),
    ),
    modernbert("one-base-new", rope_parameters={FULL: {"rope_theta": 700.0}}),
    modernbert("linear", **BASES, rope_scaling=LINEAR),
    modernbert(
        "linear-new",
        golden=True,
        rope_parameters=ropes({**LINEAR, "rope_theta": 700.0}, {**LINEAR, "rope_theta": 90.0}),
    ),
    modernbert(
        "linear-global",
        rope_parameters=ropes(
            {**LINEAR, "rope_theta": 700.0}, {"rope_type": "default", "rope_theta": 90.0}
        ),
    ),
    modernbert(
        "all-biases",
        golden=True,
        names="prefixed",
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        norm_eps=0.05,
    ),
    modernbert("attention-bias", attention_bias=True),
    modernbert("mlp-bias", mlp_bias=True),
    modernbert("norm-bias", norm_bias=True),
    modernbert("prefixed", names="prefixed"),
    modernbert("silu", hidden_activation="silu"),
    modernbert("large-eps", norm_eps=0.05),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [
    {"base", "every-third"},
    {"every-second", "layer-types-every-second"},
    {"base", "odd-window"},
    {"every-third", "odd-window"},
    {"bases", "bases-new"},
    {"linear", "linear-new"},
]
