"""Llama as data: config.json or GGUF metadata, specification, parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from ...checkpoint import GGUFFile
from ...layers.activations import Activation
from ..gguf import GGUF_NAMES, decoder_arguments
from ..hf_hub import FromHF
from ..hf_hub.conversion import (
    HFConfig,
    HFKey,
    count,
    flag,
    hidden_size_keys,
    number,
    whole_number,
)
from ..parameters import ParameterNames
from ..rotary import Rope, read_rope, write_rope
from ..spec import PRE_NORM, TransformerSpec, add_rotary, add_window, common_fields
from ..transformer import TransformerDecoder
from .config import LlamaConfig

LlamaConfigT = TypeVar("LlamaConfigT", bound=LlamaConfig)


def llama_keys(
    kv_heads: int | None = None, head_width: int | None = None, *, null_kv_heads: bool = False
) -> tuple[HFKey, ...]:
    """What all architectures like Llama read, whatever their biases.

    ``kv_heads`` and ``head_width`` are transformers' defaults where the keys are missing; None for
    what Llama does. ``null_kv_heads``: null stands for one for each query head instead.
    """
    return (
        *hidden_size_keys(),
        HFKey("num_attention_heads", "n_query_heads"),
        HFKey("num_key_value_heads", "n_key_value_heads", count, kv_heads, nullable=null_kv_heads),
        HFKey("rms_norm_eps", "rms_norm_eps", number),
        HFKey("attention_dropout", "attention_probs_dropout_prob", number, 0.0),
        HFKey("head_dim", "head_width", whole_number, head_width),
        HFKey("max_position_embeddings", "n_positions", whole_number, None),
    )


class Llama(FromHF[LlamaConfigT]):
    """What decoder and causal language model share, and other architectures begin with."""

    model_types = ("llama",)
    hf_label = "Llama"
    hf_class = "Llama"
    config_class = LlamaConfig
    default_dtype = "float16"
    hf_keys = (
        *llama_keys(),
        HFKey("attention_bias", "use_attention_bias", flag, False),
        HFKey("mlp_bias", "use_ffn_bias", flag, False),
    )
    # Splitting the products changes only the order of summation.
    hf_refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {"pretraining_tp": (1, 2, 4, 8)}
    gguf_architecture: ClassVar[str | None] = "llama"
    #: Whether GGUF files order the rows of queries and keys for rotation by neighbouring pairs.
    gguf_interleaved: ClassVar[bool] = True
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
        rope = cls.rope_from_hf(hf)
        return {
            "rotary_embedding_base": rope.base,
            "rotary_embedding_fraction": 1.0 if rope.fraction is None else rope.fraction,
            "rope_scaling": rope.scaling,
        }

    @classmethod
    def rope_from_hf(cls, hf: HFConfig) -> Rope:
        """What config.json says about rotary embeddings."""
        return read_rope(hf, 10000.0)

    @classmethod
    def values_to_hf(cls, config: LlamaConfig) -> dict[str, Any]:
        rotary = config.layer.attention.rotary_embeddings
        assert rotary is not None
        return {
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
        spec = add_rotary(TransformerSpec(fields), config)
        return add_window(spec, config.window, config.local_layers)

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[Any, ParameterNames]:
        assert cls.gguf_architecture is not None
        arguments = {
            "activation": Activation.SiLU,
            "rotary_interleaved": cls.gguf_interleaved,
            **decoder_arguments(file, cls.gguf_architecture),
        }
        return cls.config_class(**arguments), GGUF_NAMES


class LlamaDecoder(Llama[LlamaConfig], TransformerDecoder[LlamaConfig]):
    """Llama without its output head."""
