"""DistilBERT (Sanh et al. 2019)."""

from __future__ import annotations

from typing import Any

from .bert.config import BERTConfig
from .bert.encoder import EMBEDDING_NAMES
from .hf_hub.conversion import HFConfig, HFKey, activation, activation_name, number, whole_number
from .parameters import ParameterNames
from .spec import POST_NORM, TransformerSpec, common_fields
from .transformer import TransformerEncoder

#: The norms' epsilon, which no configuration changes.
NORM_EPS = 1e-12


class DistilBERTEncoder(TransformerEncoder[BERTConfig]):
    """DistilBERT: BERT's layers under other names, without types of pieces."""

    model_types = ("distilbert",)
    hf_label = "DistilBERT"
    hf_class = "DistilBert"
    config_class = BERTConfig
    # sinusoidal_pos_embds says what the position table is first filled with; checkpoints hold it.
    hf_keys = (
        HFKey("dim", "hidden_width"),
        HFKey("hidden_dim", "intermediate_width"),
        HFKey("n_layers", "n_hidden_layers"),
        HFKey("n_heads", "n_attention_heads"),
        HFKey("vocab_size", "n_pieces"),
        HFKey("max_position_embeddings", "n_positions"),
        HFKey("activation", "activation", activation, write=activation_name),
        HFKey("attention_dropout", "attention_probs_dropout_prob", number, 0.1),
        HFKey("dropout", "hidden_dropout_prob", number, 0.1),
    )
    parameter_names = ParameterNames(
        model={
            name: role
            for name, role in EMBEDDING_NAMES.items()
            if name != "embeddings.token_type_embeddings"
        },
        layer={
            "attention.q_lin": "query",
            "attention.k_lin": "key",
            "attention.v_lin": "value",
            "attention.out_lin": "attention_output",
            "sa_layer_norm": "attention_residual_norm",
            "ffn.lin1": "ffn_up",
            "ffn.lin2": "ffn_down",
            "output_layer_norm": "ffn_residual_norm",
        },
        layer_path="transformer.layer.{}.",
        prefix="distilbert.",
        ignored=(
            r"^(vocab_transform\.|vocab_layer_norm\.|vocab_projector\.|pre_classifier\."
            r"|classifier\.|qa_outputs\.|embeddings\.position_ids$)"
        ),
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        return {
            "embedding_width": whole_number(hf["dim"]),
            "model_max_length": whole_number(hf["max_position_embeddings"]),
            "n_types": None,
            "layer_norm_eps": NORM_EPS,
        }

    @classmethod
    def spec_from_config(cls, config: BERTConfig) -> TransformerSpec:
        return TransformerSpec(common_fields(config) | POST_NORM)
