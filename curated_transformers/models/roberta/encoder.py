"""RoBERTa as data: config.json, specification, parameter names."""

from __future__ import annotations

from typing import Any

from ..bert.encoder import (
    EMBEDDING_NAMES,
    ENCODER_REFUSED,
    LAYER_NAMES,
    BERTEncoder,
    widths_and_lengths,
)
from ..hf_hub.conversion import HFConfig, HFKey, whole_number
from ..parameters import ParameterNames
from ..spec import POST_NORM, TransformerSpec, common_fields
from ..transformer import TransformerEncoder
from .config import RoBERTaConfig

#: Poolers and heads, for checkpoints without a prefix, and a buffer that old ones hold.
IGNORED = r"^(pooler\.|lm_head\.|classifier\.|qa_outputs\.|embeddings\.position_ids$)"


class RoBERTaEncoder(TransformerEncoder[RoBERTaConfig]):
    """RoBERTa: BERT's layers, with positions that count pieces which are not padding.

    It is the ids that are looked at, not the mask: padding by another id than the model's own
    shifts the positions of what follows it. ``positions`` that are given are used as they are.
    """

    model_types = ("roberta",)
    hf_label = "RoBERTa"
    hf_class = "Roberta"
    config_class = RoBERTaConfig
    hf_keys = (*BERTEncoder.hf_keys, HFKey("pad_token_id", "padding_id"))
    hf_refused = ENCODER_REFUSED
    parameter_names = ParameterNames(
        model=EMBEDDING_NAMES,
        layer=LAYER_NAMES,
        layer_path="encoder.layer.{}.",
        prefix="roberta.",
        ignored=IGNORED,
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        return widths_and_lengths(hf, first_position=whole_number(hf["pad_token_id"]) + 1)

    @classmethod
    def values_to_hf(cls, config: RoBERTaConfig) -> dict[str, Any]:
        return {"embedding_size": config.embedding.embedding_width}

    @classmethod
    def spec_from_config(cls, config: RoBERTaConfig) -> TransformerSpec:
        counted = {"position_rule": "skip_padding", "padding_id": config.padding_id}
        return TransformerSpec(common_fields(config) | POST_NORM | counted)
