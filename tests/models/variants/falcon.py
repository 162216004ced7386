"""Falcon."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def falcon(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "falcon",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_kv_heads": 4,
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "alibi": False,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "decoder", golden)


def old_heads(name: str, golden: bool = False, **options: Any) -> Variant:
    return falcon(name, golden, multi_query=False, **options)


def new(name: str, golden: bool = False, **options: Any) -> Variant:
    options = {"num_kv_heads": 2, **options}
    return falcon(name, golden, new_decoder_architecture=True, **options)


VARIANTS = [
    falcon("multi-query", golden=True),
    falcon("multi-query-sequential", parallel_attn=False),
    falcon("multi-query-bias", bias=True, layer_norm_epsilon=0.05),
    falcon("multi-query-alibi", alibi=True),
    old_heads("heads"),
    old_heads(
        "heads-sequential-alibi-bias", golden=True, alibi=True, bias=True, parallel_attn=False
    ),
    old_heads("heads-alibi", alibi=True),
    old_heads(
        "twelve-heads-alibi", alibi=True, hidden_size=48, num_attention_heads=12, num_kv_heads=12
    ),
    old_heads(
        "three-heads-alibi", alibi=True, hidden_size=60, num_attention_heads=3, num_kv_heads=3
    ),
    new("new", golden=True),
    new("new-one-norm", num_ln_in_parallel_attn=1),
    new("new-multi-query", num_kv_heads=1),
    new("new-each-head", num_kv_heads=4, multi_query=False),
    new("new-six-heads", hidden_size=60, num_attention_heads=6, num_kv_heads=3),
    new("new-bias-alibi", bias=True, alibi=True),
    new("large-eps", layer_norm_epsilon=0.05),
    new("theta", rope_theta=500042.0),
    new("theta-new", rope_parameters={"rope_type": "default", "rope_theta": 500042.0}),
    new("linear", rope_scaling={"type": "linear", "factor": 4.0}),
    new("inner-width", ffn_hidden_size=88),
    new("gelu-new", activation="gelu_new"),
    new("relu", activation="relu"),
    new("silu", activation="silu"),
    new("tied", tie_word_embeddings=True),
    new("one-wide-head", num_attention_heads=1, num_kv_heads=1, num_hidden_layers=2),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"theta", "theta-new"}, {"new", "tied"}]
