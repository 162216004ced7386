"""ELECTRA."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def electra(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "electra",
        "embedding_size": 28,
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
    electra("narrow-embeddings", golden=True),
    electra("equal-widths", golden=True, embedding_size=64),
    electra("wide-embeddings", embedding_size=96),
    electra("generator", names="prefixed"),
    electra("discriminator", golden=True, names="prefixed-pretraining", layer_norm_eps=0.05),
    electra("gamma", names="gamma"),
    electra("one-type", type_vocab_size=1),
    electra("relu", hidden_act="relu"),
    electra("large-eps", layer_norm_eps=0.05),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING: list[set[str]] = []
