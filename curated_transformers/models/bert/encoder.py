"""BERT as data: config.json, specification, parameter names."""

from __future__ import annotations

from typing import Any

from ..hf_hub.conversion import HFConfig, HFKey, dropout_keys, hidden_size_keys, number
from ..parameters import ParameterNames
from ..spec import POST_NORM, TransformerSpec, common_fields
from ..transformer import TransformerEncoder
from .config import BERTConfig

EMBEDDING_NAMES = {
    "embeddings.word_embeddings": "piece_embeddings",
    "embeddings.token_type_embeddings": "type_embeddings",
    "embeddings.position_embeddings": "position_embeddings",
    "embeddings.LayerNorm": "embedding_norm",
}
LAYER_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_residual_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "ffn_residual_norm",
}
#: Poolers and heads, for checkpoints without a prefix, and a buffer that old ones hold.
IGNORED = r"^(pooler\.|cls\.|classifier\.|qa_outputs\.|embeddings\.position_ids$)"
#: What old checkpoints, converted from TensorFlow, call the parameters of norms.
TENSORFLOW_NORMS = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))


class BERTEncoder(TransformerEncoder[BERTConfig]):
    """BERT: post-norm layers, learned positions, exact GELU by default."""

    model_types = ("bert",)
    hf_label = "BERT"
    hf_class = "Bert"
    config_class = BERTConfig
    hf_keys = (
        *hidden_size_keys(),
        *dropout_keys(),
        HFKey("num_attention_heads", "n_attention_heads"),
        HFKey("type_vocab_size", "n_types"),
        HFKey("max_position_embeddings", "n_positions"),
        HFKey("layer_norm_eps", "layer_norm_eps", number),
    )
    hf_refused = {  # noqa: RUF012 (never changed)
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    }
    parameter_names = ParameterNames(
        model=EMBEDDING_NAMES,
        layer=LAYER_NAMES,
        layer_path="encoder.layer.{}.",
        prefix="bert.",
        ignored=IGNORED,
        renames=TENSORFLOW_NORMS,
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        return {
            "embedding_width": hf.get("embedding_size", hf["hidden_size"]),
            "model_max_length": hf["max_position_embeddings"],
        }

    @classmethod
    def values_to_hf(cls, config: BERTConfig) -> dict[str, Any]:
        return {"embedding_size": config.embedding.embedding_width}

    @classmethod
    def spec_from_config(cls, config: BERTConfig) -> TransformerSpec:
        positions = {"max_positions": config.embedding.n_positions}
        return TransformerSpec(common_fields(config) | POST_NORM | positions)
