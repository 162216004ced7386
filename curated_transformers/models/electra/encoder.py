"""ELECTRA as data: config.json, specification, parameter names."""

from __future__ import annotations

from typing import Any

from ..bert.config import BERTConfig
from ..bert.encoder import (
    EMBEDDING_NAMES,
    ENCODER_REFUSED,
    LAYER_NAMES,
    TENSORFLOW_NORMS,
    BERTEncoder,
    widths_and_lengths,
)
from ..hf_hub.conversion import HFConfig, HFKey
from ..parameters import ParameterNames
from ..spec import POST_NORM, TransformerSpec, common_fields
from ..transformer import TransformerEncoder

#: Heads, for checkpoints without a prefix, and a buffer that old ones hold.
IGNORED = (
    r"^(discriminator_predictions\.|generator_predictions\.|generator_lm_head\.|classifier\."
    r"|qa_outputs\.|embeddings\.position_ids$)"
)


class ELECTRAEncoder(TransformerEncoder[BERTConfig]):
    """ELECTRA, discriminator or generator: BERT's layers, with a projection of the embeddings
    where these are of another width."""

    model_types = ("electra",)
    hf_label = "ELECTRA"
    hf_class = "Electra"
    config_class = BERTConfig
    hf_keys = (*BERTEncoder.hf_keys, HFKey("embedding_size", "embedding_width"))
    hf_refused = ENCODER_REFUSED
    parameter_names = ParameterNames(
        model=EMBEDDING_NAMES | {"embeddings_project": "embedding_projection"},
        layer=LAYER_NAMES,
        layer_path="encoder.layer.{}.",
        prefix="electra.",
        ignored=IGNORED,
        renames=TENSORFLOW_NORMS,
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        return widths_and_lengths(hf)

    @classmethod
    def spec_from_config(cls, config: BERTConfig) -> TransformerSpec:
        narrower = config.embedding.embedding_width != config.layer.attention.hidden_width
        projection = {"embedding_projection": int(narrower)}
        return TransformerSpec(common_fields(config) | POST_NORM | projection)
