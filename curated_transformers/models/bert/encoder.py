"""BERT as data: config.json, specification, parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...layers.activations import Activation
from ..config import HFConfig
from ..module import EncoderModule
from ..spec import ParameterNames, TransformerSpec
from .config import BERTConfig

REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "vocab_size",
    "type_vocab_size",
    "max_position_embeddings",
    "layer_norm_eps",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
)

MODEL_NAMES = {
    "embeddings.word_embeddings.weight": "piece_embeddings.weight",
    "embeddings.token_type_embeddings.weight": "type_embeddings.weight",
    "embeddings.position_embeddings.weight": "position_embeddings.weight",
    "embeddings.LayerNorm.weight": "embedding_norm.weight",
    "embeddings.LayerNorm.bias": "embedding_norm.bias",
}

_LAYER_MODULES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_residual_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "ffn_residual_norm",
}
LAYER_NAMES = {
    f"{name}.{part}": f"{role}.{part}"
    for name, role in _LAYER_MODULES.items()
    for part in ("weight", "bias")
}


class BERTEncoder(EncoderModule):
    """BERT: post-norm layers, learned positions, exact GELU by default."""

    model_types = ("bert",)

    @classmethod
    def config_from_hf(cls, hf_config: Mapping[str, Any]) -> BERTConfig:
        """config.json -> configuration. ``ValueError`` for options that are not supported."""
        hf = HFConfig(dict(hf_config), "BERT", REQUIRED)
        hf.refuse("position_embedding_type", "absolute")
        hf.refuse("is_decoder", False)
        hf.refuse("add_cross_attention", False)
        return BERTConfig(
            dtype=hf.dtype("float32"),
            embedding_width=hf.get("embedding_size", hf["hidden_size"]),
            hidden_width=hf["hidden_size"],
            intermediate_width=hf["intermediate_size"],
            n_attention_heads=hf["num_attention_heads"],
            n_hidden_layers=hf["num_hidden_layers"],
            attention_probs_dropout_prob=hf["attention_probs_dropout_prob"],
            hidden_dropout_prob=hf["hidden_dropout_prob"],
            activation=Activation(hf["hidden_act"]),
            n_pieces=hf["vocab_size"],
            n_types=hf["type_vocab_size"],
            n_positions=hf["max_position_embeddings"],
            model_max_length=hf["max_position_embeddings"],
            layer_norm_eps=hf["layer_norm_eps"],
        )

    @classmethod
    def spec_from_config(cls, config: BERTConfig) -> TransformerSpec:
        """Configuration -> what the core runs."""
        layer, embedding = config.layer, config.embedding
        return TransformerSpec(
            {
                "hidden_width": layer.feedforward.hidden_width,
                "embedding_width": embedding.embedding_width,
                "n_layers": layer.n_hidden_layers,
                "n_pieces": embedding.n_pieces,
                "n_positions": embedding.n_positions,
                "n_types": embedding.n_types,
                "max_positions": embedding.n_positions,
                "embedding_norm": 1,
                "norm_eps": layer.layer_norm_eps,
                "attention_residual_norm": 1,
                "ffn_residual_norm": 1,
                "n_heads": layer.attention.n_query_heads,
                "qkv_bias": 1,
                "attention_output_bias": 1,
                "ffn_bias": 1,
                "intermediate_width": layer.feedforward.intermediate_width,
                "activation": layer.feedforward.activation.core_name,
                "dtype": config.dtype,
            }
        )

    @classmethod
    def parameter_names(cls, config: BERTConfig) -> ParameterNames:
        """Checkpoint names -> roles; old checkpoints call norms' parameters gamma and beta."""
        return ParameterNames(
            prefixes=("bert.",),
            layer_prefix="encoder.layer.",
            model=MODEL_NAMES,
            layer=LAYER_NAMES,
            ignored=r"^(pooler\.|cls\.|classifier\.|qa_outputs\.|embeddings\.position_ids$)",
            renames=((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
        )
