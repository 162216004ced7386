"""Falcon as data: config.json or GGUF metadata, specification, parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...checkpoint import GGUFFile
from ..gguf import GGUF_NAMES, common_arguments, gguf_config, rotary_arguments
from ..hf_hub import FromHF
from ..hf_hub.conversion import (
    REQUIRED,
    HFConfig,
    HFKey,
    activation,
    activation_name,
    dropout_keys,
    flag,
    number,
    whole_number,
)
from ..parameters import ParameterNames
from ..rotary import read_rope, write_rope
from ..spec import TransformerSpec, add_rotary, common_fields
from ..transformer import TransformerDecoder
from .config import FalconConfig

#: Keys of the first format, whose model_type has "RefinedWeb" in it, and those that replaced them.
_REFINED_WEB = {
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_head_kv": "num_kv_heads",
}

_NEW_NORMS = ("ln_attn", "ln_mlp")

_GGUF_NAMES = replace(
    GGUF_NAMES,
    layer={
        "attn_norm": "attention_input_norm",
        "attn_qkv": "qkv",
        "attn_output": "attention_output",
        "ffn_up": "ffn_up",
        "ffn_down": "ffn_down",
    },
)
# Where there are two norms, `attn_norm` is that of the feed-forward half.
_GGUF_NAMES_TWO_NORMS = replace(
    _GGUF_NAMES,
    layer={
        **_GGUF_NAMES.layer,
        "attn_norm": "ffn_input_norm",
        "attn_norm_2": "attention_input_norm",
    },
)


class Falcon(FromHF[FalconConfig]):
    """What decoder and causal language model share.

    The bias of ALiBi is scaled together with the scores, as in the original model, and is a slope
    times the column of the key. transformers rounds slopes and products to bfloat16 and leaves
    columns that a mask has between real ones uncounted; we do neither.
    """

    model_types = ("falcon", "RefinedWeb", "RefinedWebModel")
    hf_label = "Falcon"
    hf_class = "Falcon"
    config_class = FalconConfig
    default_dtype = "bfloat16"
    hf_keys = (
        HFKey("hidden_size", "hidden_width", aliases=("n_embed",)),
        HFKey("num_hidden_layers", "n_hidden_layers"),
        HFKey("num_attention_heads", "n_query_heads"),
        HFKey("vocab_size", "n_pieces"),
        HFKey("parallel_attn", "use_parallel_attention", flag),
        HFKey("bias", "use_bias", flag),
        HFKey("alibi", "use_alibi", flag),
        HFKey("layer_norm_epsilon", "layer_norm_eps", number),
        *dropout_keys(0.0),
        HFKey("new_decoder_architecture", "new_decoder_architecture", flag, False),
        HFKey("num_ln_in_parallel_attn", "n_parallel_layer_norms", whole_number, None),
        HFKey("ffn_hidden_size", "intermediate_width", whole_number, None),
        HFKey("max_position_embeddings", "n_positions", whole_number, None),
    )
    hf_refused = {  # noqa: RUF012 (never changed)
        "apply_residual_connection_post_layernorm": (False,),
    }
    gguf_architecture = "falcon"
    parameter_names = ParameterNames(
        model={
            "word_embeddings": "piece_embeddings",
            "ln_f": "output_norm",
            "lm_head": "head",
        },
        layer={
            "input_layernorm": "attention_input_norm",
            "post_attention_layernorm": "ffn_input_norm",
            "ln_attn": "attention_input_norm",
            "ln_mlp": "ffn_input_norm",
            "self_attention.query_key_value": "qkv",
            "self_attention.dense": "attention_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
        layer_path="h.{}.",
        prefix="transformer.",
        ignored=r"\.inv_freq$",
        curated={
            "input_layernorm": "attn_layer_norm",
            "post_attention_layernorm": "ffn_layer_norm",
        },
    )

    @classmethod
    def config_from_hf(cls, hf_config: Mapping[str, Any]) -> FalconConfig:
        config: FalconConfig = super().config_from_hf(_in_newer_format(hf_config))
        return config

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        gelu = HFKey("activation", "activation", activation, activation("gelu"))
        arguments = {"activation": hf.read(gelu), "n_key_value_heads": _key_value_heads(hf)}
        if hf["alibi"]:
            return arguments
        rope = read_rope(hf, 10000.0)
        return arguments | {
            "rotary_embedding_base": rope.base,
            "rotary_embedding_fraction": 1.0 if rope.fraction is None else rope.fraction,
            "rope_scaling": rope.scaling,
        }

    @classmethod
    def values_to_hf(cls, config: FalconConfig) -> dict[str, Any]:
        if config.qkv_order != "grouped":
            raise ValueError(
                "config.json cannot say the order of queries, keys and values that a model from a "
                "GGUF file has"
            )
        attention = config.layer.attention
        values = {
            "activation": activation_name(config.layer.feedforward.activation),
            "num_kv_heads": attention.n_key_value_heads,
            "multi_query": not config.new_decoder_architecture and attention.n_key_value_heads == 1,
        }
        rotary = attention.rotary_embeddings
        if rotary is None:
            return values
        return {
            **values,
            "partial_rotary_factor": rotary.rotary_fraction,
            **write_rope(rotary.rotary_base, config.rope_scaling),
        }

    @classmethod
    def spec_from_config(cls, config: FalconConfig) -> TransformerSpec:
        two_norms = not config.is_parallel or config.n_parallel_layer_norms == 2
        fields = common_fields(config)
        fields |= {
            "attention_input_norm": 1,
            "ffn_input_norm": int(two_norms),
            "output_norm": 1,
            "parallel": int(config.is_parallel),
            "qkv_order": config.qkv_order,
            "causal": 1,
            "alibi_scaled": 1,
            "max_positions": 0 if fields["alibi"] else config.n_positions or 0,
        }
        return add_rotary(TransformerSpec(fields), config)

    @classmethod
    def names_from_config(cls, config: FalconConfig) -> ParameterNames:
        """The two architectures name their norms differently."""
        two_norms = config.new_decoder_architecture and config.n_parallel_layer_norms == 2
        others = ("input_layernorm", "post_attention_layernorm") if two_norms else _NEW_NORMS
        layer = {
            module: role
            for module, role in cls.parameter_names.layer.items()
            if module not in others
        }
        return replace(cls.parameter_names, layer=layer)

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[FalconConfig, ParameterNames]:
        """GGUF files hold parallel layers only, with rotary embeddings."""
        gguf = gguf_config(file, "falcon")
        common = common_arguments(file, gguf)
        two_norms = "blk.0.attn_norm_2.weight" in file.infos
        kv_heads, heads = common["n_key_value_heads"], common["n_query_heads"]
        config = FalconConfig(
            **common,
            **rotary_arguments(file, gguf, common["hidden_width"] // heads),
            new_decoder_architecture=two_norms or kv_heads not in (1, heads),
            n_parallel_layer_norms=2 if two_norms else 1,
            use_bias="blk.0.attn_qkv.bias" in file.infos,
            qkv_order="concatenated",
        )
        return config, _GGUF_NAMES_TWO_NORMS if two_norms else _GGUF_NAMES


def _in_newer_format(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the keys of model_type ``falcon``."""
    model_type = hf_config.get("model_type")
    if model_type is None and "architectures" not in hf_config:
        raise KeyError("model_type")
    if model_type in (None, "falcon"):
        return dict(hf_config)
    if "RefinedWeb" not in str(model_type):
        raise ValueError(f"Unknown type of Falcon model: {model_type}")
    hf = HFConfig(hf_config, Falcon.hf_label)
    older = {new: old for old, new in _REFINED_WEB.items()}
    hf.require(
        older.get(key.name, key.name)
        for key in Falcon.hf_keys
        if key.default is REQUIRED and not hf.has_any(key.aliases)
    )
    values = {_REFINED_WEB.get(key, key): value for key, value in hf_config.items()}
    return values | {"new_decoder_architecture": "n_head_kv" in hf}


def _key_value_heads(hf: HFConfig) -> int:
    heads = whole_number(hf["num_attention_heads"])
    given = hf.read(HFKey("num_kv_heads", "n_key_value_heads", whole_number, -1))
    if hf.get("new_decoder_architecture", False):
        if given == -1:
            raise ValueError(
                "Hugging Face Falcon model config with new decoder architecture must contain "
                "`n_head_kv`"
            )
        return int(given)
    if hf.read(HFKey("multi_query", "multi_query", flag, False)):
        return 1  # files with several query heads name as many key and value heads
    if given not in (-1, heads):
        raise ValueError(
            f"Falcon config.json: num_kv_heads = {given} is not supported in the old decoder "
            f"architecture, only {heads}, as many as there are query heads"
        )
    return heads


class FalconDecoder(Falcon, TransformerDecoder[FalconConfig]):
    """Falcon without its output head."""
