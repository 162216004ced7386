"""BERT as data: config.json, specification, parameter names."""

from __future__ import annotations

from typing import Any

from ..hf_hub.conversion import (
    HFConfig,
    HFKey,
    dropout_keys,
    hidden_size_keys,
    number,
    whole_number,
)
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
#: Options of transformers' encoders that make another model of them.
ENCODER_REFUSED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


def widths_and_lengths(hf: HFConfig, first_position: int = 0) -> dict[str, Any]:
    """What several keys say together: embeddings are as wide as the layers where nothing else is
    said, and positions that no piece gets do not count."""
    hidden_size = whole_number(hf["hidden_size"])
    return {
        "embedding_width": hf.read(HFKey("embedding_size", "embedding_width", default=hidden_size)),
        "model_max_length": whole_number(hf["max_position_embeddings"]) - first_position,
    }


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
    hf_refused = ENCODER_REFUSED
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
        return widths_and_lengths(hf)

    @classmethod
    def values_to_hf(cls, config: BERTConfig) -> dict[str, Any]:
        return {"embedding_size": config.embedding.embedding_width}

    @classmethod
    def spec_from_config(cls, config: BERTConfig) -> TransformerSpec:
        return TransformerSpec(common_fields(config) | POST_NORM)
