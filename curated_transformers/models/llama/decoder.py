"""Llama as data: config.json or GGUF metadata, specification, parameter names."""

from __future__ import annotations

from typing import Any

from ...checkpoint import GGUFFile
from ...layers.activations import Activation
from ..gguf import GGUF_NAMES, decoder_arguments
from ..hf_hub import FromHF
from ..hf_hub.conversion import HFConfig, HFKey, flag, hidden_size_keys, number, whole_number
from ..parameters import ParameterNames
from ..rotary import read_rope, write_rope
from ..spec import PRE_NORM, TransformerSpec, add_rotary, common_fields
from ..transformer import TransformerDecoder
from .config import LlamaConfig


class Llama(FromHF[LlamaConfig]):
    """What decoder and causal language model share."""

    model_types = ("llama",)
    hf_label = "Llama"
    hf_class = "Llama"
    config_class = LlamaConfig
    default_dtype = "float16"
    hf_keys = (
        *hidden_size_keys(),
        HFKey("num_attention_heads", "n_query_heads"),
        HFKey("rms_norm_eps", "rms_norm_eps", number),
        HFKey("attention_dropout", "attention_probs_dropout_prob", number, 0.0),
        HFKey("head_dim", "head_width", whole_number, None),
        HFKey("max_position_embeddings", "n_positions", whole_number, None),
        HFKey("attention_bias", "use_attention_bias", flag, False),
        HFKey("mlp_bias", "use_ffn_bias", flag, False),
    )
    # Splitting the products changes only the order of summation.
    hf_refused = {"pretraining_tp": (1, 2, 4, 8)}  # noqa: RUF012 (never changed)
    gguf_architecture = "llama"
    parameter_names = ParameterNames(
        model={
            "embed_tokens": "piece_embeddings",
            "norm": "output_norm",
            "lm_head": "head",
        },
        layer={
            "input_layernorm": "attention_input_norm",
            "post_attention_layernorm": "ffn_input_norm",
            "self_attn.q_proj": "query",
            "self_attn.k_proj": "key",
            "self_attn.v_proj": "value",
            "self_attn.o_proj": "attention_output",
            "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        },
        prefix="model.",
        ignored=r"rotary_emb\.inv_freq$",
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        rope = read_rope(hf, 10000.0)
        return {
            "n_key_value_heads": hf.get("num_key_value_heads", hf["num_attention_heads"]),
            "rotary_embedding_base": rope.base,
            "rotary_embedding_fraction": 1.0 if rope.fraction is None else rope.fraction,
            "rope_scaling": rope.scaling,
        }

    @classmethod
    def values_to_hf(cls, config: LlamaConfig) -> dict[str, Any]:
        attention = config.layer.attention
        rotary = attention.rotary_embeddings
        assert rotary is not None
        return {
            "num_key_value_heads": attention.n_key_value_heads,
            "partial_rotary_factor": rotary.rotary_fraction,
            **write_rope(rotary.rotary_base, config.rope_scaling),
        }

    @classmethod
    def spec_from_config(cls, config: LlamaConfig) -> TransformerSpec:
        fields = common_fields(config) | PRE_NORM
        fields |= {
            "norm_kind": "rms",
            "causal": 1,
            "max_positions": config.n_positions or 0,
            "head_width": config.head_width or 0,
            "rotary_interleaved": int(config.rotary_interleaved),
        }
        return add_rotary(TransformerSpec(fields), config)

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[LlamaConfig, ParameterNames]:
        """GGUF stores the rows of queries and keys for rotation by neighbouring pairs."""
        arguments = decoder_arguments(file, "llama")
        config = LlamaConfig(activation=Activation.SiLU, rotary_interleaved=True, **arguments)
        return config, GGUF_NAMES


class LlamaDecoder(Llama, TransformerDecoder[LlamaConfig]):
    """Llama without its output head."""
