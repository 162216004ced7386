"""ALBERT."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def albert(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "albert",
        "embedding_size": 28,
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 4,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "num_attention_heads": 4,
        "hidden_act": "gelu_new",
        "vocab_size": N_PIECES,
        "type_vocab_size": 2,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-12,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "encoder", golden, names)


VARIANTS = [
    albert("one-group", golden=True),
    albert("two-groups", num_hidden_groups=2),
    albert("four-groups", num_hidden_groups=4),
    albert("two-layers-a-group", inner_group_num=2),
    albert(
        "groups-of-layers",
        golden=True,
        num_hidden_layers=6,
        num_hidden_groups=2,
        inner_group_num=3,
    ),
    albert("equal-widths", golden=True, embedding_size=64, num_hidden_layers=2),
    albert("wide-embeddings", embedding_size=96),
    albert("two-applications", num_hidden_layers=2),
    albert("one-type", type_vocab_size=1),
    albert("prefixed", golden=True, names="prefixed", layer_norm_eps=0.05),
    albert("prefixed-pretraining", names="prefixed-pretraining"),
    albert("gelu", hidden_act="gelu"),
    albert("relu", hidden_act="relu"),
    albert("large-eps", layer_norm_eps=0.05),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING: list[set[str]] = []
