"""ALBERT as data: config.json, specification, parameter names."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from ..bert.encoder import EMBEDDING_NAMES, ENCODER_REFUSED, BERTEncoder, widths_and_lengths
from ..hf_hub.conversion import HFConfig, HFKey
from ..parameters import ParameterNames
from ..spec import POST_NORM, TransformerSpec, common_fields
from ..transformer import TransformerEncoder
from .config import ALBERTConfig

#: Poolers and heads, and a buffer that old checkpoints hold.
IGNORED = (
    r"^(pooler\.|predictions\.|sop_classifier\.|classifier\.|qa_outputs\."
    r"|embeddings\.position_ids$)"
)


class ALBERTEncoder(TransformerEncoder[ALBERTConfig]):
    """ALBERT: layers in groups that are applied several times, and narrow embeddings.

    The outputs are those of the applications of a group. transformers, which this agrees with
    otherwise, gives the state after each layer of a group of several.
    """

    model_types = ("albert",)
    hf_label = "ALBERT"
    hf_class = "Albert"
    config_class = ALBERTConfig
    hf_keys = (
        *BERTEncoder.hf_keys,
        HFKey("embedding_size", "embedding_width"),
        HFKey("inner_group_num", "n_layers_per_group"),
        HFKey("num_hidden_groups", "n_hidden_groups"),
    )
    # The last four were options of the original's experiments.
    hf_refused = ENCODER_REFUSED | {
        "down_scale_factor": (1,),
        "gap_size": (0,),
        "net_structure_type": (0,),
        "num_memory_blocks": (0,),
    }
    parameter_names = ParameterNames(
        model={
            **EMBEDDING_NAMES,
            "encoder.embedding_hidden_mapping_in": "embedding_projection",
        },
        layer={
            "attention.query": "query",
            "attention.key": "key",
            "attention.value": "value",
            "attention.dense": "attention_output",
            "attention.LayerNorm": "attention_residual_norm",
            "ffn": "ffn_up",
            "ffn_output": "ffn_down",
            "full_layer_layer_norm": "ffn_residual_norm",
        },
        layer_path="encoder.albert_layer_groups.{}.albert_layers.{}.",
        prefix="albert.",
        ignored=IGNORED,
        curated_layer_path="groups.{}.group_layers.{}.",
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        return widths_and_lengths(hf)

    @classmethod
    def spec_from_config(cls, config: ALBERTConfig) -> TransformerSpec:
        layer = config.layer
        if layer.n_hidden_groups < 1 or layer.n_hidden_layers % layer.n_hidden_groups:
            # Programs look for these words, as they are spelled.
            raise ValueError(
                f"Number of hidden layers ({layer.n_hidden_layers}) must be divisable by number of "
                f"hidden groups ({layer.n_hidden_groups})"
            )
        narrower = config.embedding.embedding_width != layer.attention.hidden_width
        groups = {
            "n_layer_groups": layer.n_hidden_groups,
            "layers_per_group": layer.n_layers_per_group,
            "embedding_projection": int(narrower),
        }
        return TransformerSpec(common_fields(config) | POST_NORM | groups)

    @classmethod
    def spec_for_roles(cls, config: ALBERTConfig, roles: Set[str]) -> TransformerSpec:
        """A checkpoint may hold a projection between equal widths too."""
        spec = cls.spec_from_config(config)
        if "embedding_projection.weight" in roles:
            spec.fields["embedding_projection"] = 1
        return spec
