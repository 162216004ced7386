"""RoBERTa, and CamemBERT and XLM-RoBERTa, which differ from it in names alone."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def roberta(
    name: str,
    golden: bool = False,
    names: str = "plain",
    model_type: str = "roberta",
    pad_token_id: int = 1,
    **options: Any,
) -> Variant:
    config = {
        "model_type": model_type,
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "vocab_size": N_PIECES,
        "type_vocab_size": 1,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-5,
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "pad_token_id": pad_token_id,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, "encoder", golden, names, padding_id=pad_token_id)


# Pieces are drawn without looking at the padding id, so that it stands within sequences too.
VARIANTS = [
    roberta("base", golden=True),
    roberta("other-padding", golden=True, pad_token_id=17),
    roberta("padding-0", pad_token_id=0),
    roberta("prefixed", golden=True, names="prefixed", layer_norm_eps=0.05),
    roberta("two-types", type_vocab_size=2),
    roberta("gelu-new", hidden_act="gelu_new"),
    roberta("width-40", hidden_size=40, num_attention_heads=5, intermediate_size=50),
    roberta("large-eps", layer_norm_eps=0.05),
    roberta("base", golden=True, model_type="camembert"),
    roberta("prefixed", model_type="camembert", names="prefixed"),
    roberta("base", golden=True, model_type="xlm-roberta"),
    roberta("prefixed", model_type="xlm-roberta", names="prefixed"),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING: list[set[str]] = []
