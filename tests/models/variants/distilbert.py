"""DistilBERT."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def distilbert(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "distilbert",
        "dim": 64,
        "hidden_dim": 88,
        "n_layers": 3,
        "n_heads": 4,
        "activation": "gelu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "attention_dropout": 0.1,
        "dropout": 0.1,
        "sinusoidal_pos_embds": False,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "encoder", golden, names)


VARIANTS = [
    distilbert("base", golden=True),
    distilbert("relu", golden=True, activation="relu", dim=40, n_heads=5, hidden_dim=50),
    distilbert("gelu-new", activation="gelu_new"),
    distilbert("sinusoidal", sinusoidal_pos_embds=True),  # the checkpoint's table, all the same
    distilbert("prefixed", golden=True, names="prefixed", n_heads=2),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"base", "sinusoidal"}]
