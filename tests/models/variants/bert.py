"""BERT."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def bert(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "bert",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "vocab_size": N_PIECES,
        "type_vocab_size": 2,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-12,
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "encoder", golden, names)


VARIANTS = [
    bert("base", golden=True),
    bert("gelu-new", golden=True, hidden_act="gelu_new"),
    bert("gelu-fast", hidden_act="gelu_fast"),
    bert("relu", hidden_act="relu"),
    bert("silu", hidden_act="silu"),
    bert("one-type", type_vocab_size=1),
    bert("three-types", type_vocab_size=3),
    bert("width-32", hidden_size=32, num_attention_heads=2, intermediate_size=52),
    bert(
        "width-40",
        golden=True,
        hidden_size=40,
        num_attention_heads=5,
        intermediate_size=50,
        layer_norm_eps=0.05,
    ),
    bert("width-60", hidden_size=60, num_attention_heads=6, num_hidden_layers=2),
    bert("one-wide-head", num_attention_heads=1),
    bert("large-eps", layer_norm_eps=0.05),
    bert("prefixed", golden=True, names="prefixed"),
    bert("gamma", golden=True, names="gamma"),
    bert("prefixed-gamma", names="prefixed-gamma"),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"gelu-new", "gelu-fast"}]
