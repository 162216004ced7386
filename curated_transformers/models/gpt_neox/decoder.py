"""GPT-NeoX as data: config.json, specification, parameter names."""

from __future__ import annotations

from typing import Any

from ..hf_hub.conversion import (
    HFConfig,
    HFKey,
    dropout_keys,
    flag,
    hidden_size_keys,
    number,
)
from ..hf_hub.mixin import FromHF
from ..parameters import ParameterNames
from ..rotary import read_rope, write_rope
from ..spec import PRE_NORM, TransformerSpec, add_rotary, common_fields
from ..transformer import TransformerDecoder
from .config import GPTNeoXConfig


class GPTNeoX(FromHF[GPTNeoXConfig]):
    """What decoder and causal language model share."""

    model_types = ("gpt_neox",)
    hf_label = "GPT-NeoX"
    hf_class = "GPTNeoX"
    config_class = GPTNeoXConfig
    default_dtype = "float16"
    hf_keys = (
        *hidden_size_keys(),
        *dropout_keys(0.0),
        HFKey("num_attention_heads", "n_attention_heads"),
        HFKey("max_position_embeddings", "n_positions"),
        HFKey("layer_norm_eps", "layer_norm_eps", number),
        HFKey("attention_bias", "use_attention_bias", flag, True),
        HFKey("use_parallel_residual", "use_parallel_attention", flag, True),
    )
    parameter_names = ParameterNames(
        model={
            "embed_in": "piece_embeddings",
            "final_layer_norm": "output_norm",
            "embed_out": "head",
            "lm_head": "head",  # its name inside transformers since version 5
        },
        layer={
            "input_layernorm": "attention_input_norm",
            "post_attention_layernorm": "ffn_input_norm",
            "attention.query_key_value": "qkv",
            "attention.dense": "attention_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
        prefix="gpt_neox.",
        ignored=r"(rotary_emb\.inv_freq|attention\.(masked_)?bias)$",
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        rope = read_rope(hf, hf.get("rotary_emb_base", 10000))
        fraction = hf.get("rotary_pct", 0.25) if rope.fraction is None else rope.fraction
        return {
            "model_max_length": hf["max_position_embeddings"],
            "rotary_embedding_base": rope.base,
            "rotary_embedding_fraction": number(fraction),
            "rope_scaling": rope.scaling,
        }

    @classmethod
    def values_to_hf(cls, config: GPTNeoXConfig) -> dict[str, Any]:
        rotary = config.layer.attention.rotary_embeddings
        assert rotary is not None
        return {
            "rotary_emb_base": rotary.rotary_base,
            "rotary_pct": rotary.rotary_fraction,
            "rope_scaling": write_rope(rotary.rotary_base, config.rope_scaling)["rope_scaling"],
        }

    @classmethod
    def spec_from_config(cls, config: GPTNeoXConfig) -> TransformerSpec:
        fields = common_fields(config) | PRE_NORM
        fields |= {
            "max_positions": config.model_max_length,
            "qkv_order": "grouped",
            "causal": 1,
        }
        return add_rotary(TransformerSpec(fields), config)


class GPTNeoXDecoder(GPTNeoX, TransformerDecoder[GPTNeoXConfig]):
    """GPT-NeoX without its output head."""
