"""MPNet (Song et al. 2020)."""

from __future__ import annotations

from typing import Any

from .bert.encoder import EMBEDDING_NAMES, ENCODER_REFUSED, BERTEncoder, widths_and_lengths
from .hf_hub.conversion import HFConfig
from .parameters import ParameterNames
from .roberta.config import RoBERTaConfig
from .roberta.encoder import IGNORED
from .spec import POST_NORM, TransformerSpec, common_fields
from .transformer import TransformerEncoder

#: What positions start behind, whatever piece pads.
PADDING_ID = 1
#: Of distances; the table of their biases is shared by all layers.
N_BUCKETS = 32
MAX_DISTANCE = 128


class MPNetEncoder(TransformerEncoder[RoBERTaConfig]):
    """MPNet: RoBERTa's layers and positions, without types of pieces and with a bias for the
    distance between two pieces.

    transformers fixes the padding piece of the positions, 1, and the number of buckets, 32; a
    configuration that states another number of buckets is refused.
    """

    model_types = ("mpnet",)
    hf_label = "MPNet"
    hf_class = "MPNet"
    config_class = RoBERTaConfig
    hf_keys = tuple(key for key in BERTEncoder.hf_keys if key.name != "type_vocab_size")
    hf_refused = ENCODER_REFUSED | {"relative_attention_num_buckets": (N_BUCKETS,)}
    parameter_names = ParameterNames(
        model={
            **{
                name: role
                for name, role in EMBEDDING_NAMES.items()
                if name != "embeddings.token_type_embeddings"
            },
            "encoder.relative_attention_bias": "relative_attention_bias",
        },
        layer={
            "attention.attn.q": "query",
            "attention.attn.k": "key",
            "attention.attn.v": "value",
            "attention.attn.o": "attention_output",
            "attention.LayerNorm": "attention_residual_norm",
            "intermediate.dense": "ffn_up",
            "output.dense": "ffn_down",
            "output.LayerNorm": "ffn_residual_norm",
        },
        layer_path="encoder.layer.{}.",
        prefix="mpnet.",
        ignored=IGNORED,
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        return {
            **widths_and_lengths(hf, first_position=PADDING_ID + 1),
            "n_types": None,
            "padding_id": PADDING_ID,
        }

    @classmethod
    def values_to_hf(cls, config: RoBERTaConfig) -> dict[str, Any]:
        return {
            "embedding_size": config.embedding.embedding_width,
            "pad_token_id": PADDING_ID,
            "relative_attention_num_buckets": N_BUCKETS,
        }

    @classmethod
    def spec_from_config(cls, config: RoBERTaConfig) -> TransformerSpec:
        positions = {
            "position_rule": "skip_padding",
            "padding_id": config.padding_id,
            "relative_buckets": N_BUCKETS,
            "relative_max_distance": MAX_DISTANCE,
        }
        return TransformerSpec(common_fields(config) | POST_NORM | positions)
