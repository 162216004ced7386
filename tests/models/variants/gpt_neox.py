"""GPT-NeoX."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def gpt_neox(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "gpt_neox",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-5,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    config |= options
    if "rope_parameters" in options:  # the newer style replaces these two
        del config["rotary_pct"], config["rotary_emb_base"]
    return Variant(name, config, "decoder", golden, names)


VARIANTS = [
    gpt_neox("parallel", golden=True),
    gpt_neox("sequential", golden=True, use_parallel_residual=False),
    gpt_neox("half-rotary", golden=True, rotary_pct=0.5),
    gpt_neox("full-rotary", rotary_pct=1.0, use_parallel_residual=False),
    gpt_neox("truncated-rotary", hidden_size=40, rotary_pct=0.25),  # 2.5 of 10 features
    gpt_neox("one-wide-head", num_attention_heads=1, num_hidden_layers=2),
    gpt_neox("base", rotary_emb_base=500, rotary_pct=1.0),
    gpt_neox(
        "base-new",
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
    ),
    gpt_neox("linear", rope_scaling={"type": "linear", "factor": 4.0}, rotary_pct=0.5),
    gpt_neox(
        "linear-new",
        golden=True,
        rope_parameters={
            "rope_type": "linear",
            "factor": 4.0,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    ),
    gpt_neox("gelu-new", hidden_act="gelu_new"),
    gpt_neox("gelu-fast", hidden_act="gelu_fast"),
    gpt_neox("relu", hidden_act="relu", use_parallel_residual=False),
    gpt_neox("silu", hidden_act="silu"),
    gpt_neox("without-attention-bias", golden=True, attention_bias=False, layer_norm_eps=0.05),
    gpt_neox("tied", tie_word_embeddings=True),
    gpt_neox("lm-head", names="inside"),
    gpt_neox("large-eps", layer_norm_eps=0.05),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"gelu-new", "gelu-fast"}]
