"""MPNet."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def mpnet(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "mpnet",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-12,
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "encoder", golden, names, padding_id=1)


VARIANTS = [
    mpnet("base", golden=True),
    mpnet("prefixed", golden=True, names="prefixed", layer_norm_eps=0.05),
    mpnet("width-40", golden=True, hidden_size=40, num_attention_heads=5, intermediate_size=50),
    mpnet("relu", hidden_act="relu"),
    mpnet("large-eps", layer_norm_eps=0.05),
    mpnet("other-padding", pad_token_id=17),  # positions skip piece 1 all the same
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"base", "other-padding"}]
