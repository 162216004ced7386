"""MPT as data: config.json or GGUF metadata, specification, parameter names."""

from __future__ import annotations

import math
from typing import Any

from ...checkpoint import GGUFFile
from ...layers.activations import Activation
from ..gguf import GGUF_NAMES, common_arguments, gguf_config
from ..hf_hub import FromHF
from ..hf_hub.conversion import HFConfig, HFKey, dropout_keys, flag, number, whole_number
from ..parameters import ParameterNames
from ..spec import PRE_NORM, TransformerSpec, common_fields
from ..transformer import TransformerDecoder
from .config import MPTConfig

_LAYER_NORMS = ("low_precision_layernorm", "layernorm")
_RMS_NORMS = ("low_precision_rmsnorm", "rmsnorm", "triton_rmsnorm")


def _is_rms_norm(name: Any) -> bool:
    if str(name).lower() not in _LAYER_NORMS + _RMS_NORMS:
        known = ", ".join(_LAYER_NORMS + _RMS_NORMS)
        raise ValueError(f"norm_type = {name!r} is not supported, only {known}")
    return str(name).lower() in _RMS_NORMS


def _logit_scale(value: Any) -> float | str:
    return "inv_sqrt_d_model" if value == "inv_sqrt_d_model" else number(value)


def _positive(value: Any) -> float:
    if not number(value) > 0:
        raise ValueError(f"must be positive, was: {value!r}")
    return number(value)


def _whole_if_it_is(value: float) -> float:
    return int(value) if value.is_integer() else value


def _limit(value: Any) -> float | None:
    # A limit of 0 is none.
    return number(value) or None


class MPT(FromHF[MPTConfig]):
    """What decoder and causal language model share.

    transformers computes only what most published files have: ALiBi with a largest bias of 8, layer
    norms and linear layers without biases, a feed-forward half four times as wide, no norm of
    queries and keys, unscaled logits. What other files say is computed here as in the original
    model. A table of positions is read by column, so that
    padding on the left needs ``positions``.
    """

    model_types = ("mpt",)
    hf_label = "MPT"
    hf_class = "Mpt"
    config_class = MPTConfig
    default_dtype = "bfloat16"
    hf_keys = (
        HFKey("d_model", "hidden_width"),
        HFKey("expansion_ratio", "intermediate_width_multiplier"),
        HFKey("max_seq_len", "model_max_length"),
        HFKey("n_layers", "n_hidden_layers"),
        HFKey("n_heads", "n_attention_heads"),
        HFKey("vocab_size", "n_pieces"),
        HFKey("no_bias", "use_bias", lambda value: not flag(value), write=lambda value: not value),
        HFKey("layer_norm_epsilon", "layer_norm_eps", number, 1e-5, aliases=("norm_eps",)),
        *dropout_keys(0.0, attention="attn_config.attn_pdrop", hidden="resid_pdrop"),
        HFKey("attn_config.alibi", "use_alibi", flag, True),
        HFKey("attn_config.alibi_bias_max", "alibi_max_bias", number, 8.0, write=_whole_if_it_is),
        HFKey("attn_config.clip_qkv", "clip_qkv", _limit, None),
        HFKey("attn_config.softmax_scale", "attention_scale", _positive, None),
        HFKey("attn_config.qk_ln", "use_qk_norm", flag, False),
        HFKey("learned_pos_emb", "use_learned_positions", flag, True),
        HFKey("logit_scale", "logit_scale", _logit_scale, None),
        HFKey(
            "norm_type",
            "use_rms_norm",
            _is_rms_norm,
            False,
            write=lambda rms: _RMS_NORMS[0] if rms else _LAYER_NORMS[0],
        ),
    )
    # The first of each is the default; one that is None alone has no value that we honour.
    hf_refused = {  # noqa: RUF012 (never changed)
        "attn_config.prefix_lm": (False,),
        "attn_config.attn_uses_sequence_id": (False,),
        "attn_config.qk_gn": (False,),
        "attn_config.rope": (False,),
        "attn_config.fused_qkv": (True,),
        "attn_config.sliding_window_size": (-1,),
        "attn_config.attn_logit_softcapping": (None,),
        "ffn_config.ffn_type": ("mptmlp",),
        "ffn_config.ffn_act_fn": (None,),
        "ffn_config.ffn_hidden_size": (None,),
        "final_logit_softcapping": (None,),
        "block_overrides": (None,),
    }
    gguf_architecture = "mpt"
    parameter_names = ParameterNames(
        model={
            "wte": "piece_embeddings",
            "wpe": "position_embeddings",
            "norm_f": "output_norm",
            "lm_head": "head",
        },
        layer={
            "norm_1": "attention_input_norm",
            "norm_2": "ffn_input_norm",
            "attn.Wqkv": "qkv",
            "attn.q_ln": "query_norm",
            "attn.k_ln": "key_norm",
            "attn.out_proj": "attention_output",
            "ffn.up_proj": "ffn_up",
            "ffn.down_proj": "ffn_down",
        },
        layer_path="blocks.{}.",
        prefix="transformer.",
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        for name in ("attn_config", "ffn_config"):
            if not isinstance(hf.get(name, {}), dict):
                raise ValueError(f"MPT config.json: {name} must be an object, was: {hf[name]!r}")
        return {"n_key_value_heads": _key_value_heads(hf)}

    @classmethod
    def values_to_hf(cls, config: MPTConfig) -> dict[str, Any]:
        if config.layer.feedforward.activation is not Activation.GELU:
            raise ValueError("config.json of MPT cannot say an activation other than gelu")
        attention = config.layer.attention
        kv_heads, kind = attention.n_key_value_heads, "multihead_attention"
        if kv_heads != attention.n_query_heads:
            kind = "multiquery_attention" if kv_heads == 1 else "grouped_query_attention"
        return {"attn_config.attn_type": kind, "attn_config.kv_n_heads": kv_heads}

    @classmethod
    def spec_from_config(cls, config: MPTConfig) -> TransformerSpec:
        fields = common_fields(config) | PRE_NORM
        scale = config.logit_scale
        if scale is None:
            scale = 1.0
        elif isinstance(scale, str):
            scale = 1 / math.sqrt(config.layer.attention.hidden_width)
        fields |= {
            "causal": 1,
            "norm_kind": "rms" if config.use_rms_norm else "layer",
            "norm_bias": int(config.layer.attention.use_bias),
            "qk_norm": "all" if config.use_qk_norm else "none",
            "alibi_max_bias": config.alibi_max_bias,
            "attention_scale": config.attention_scale or 0.0,
            "clip_qkv": config.clip_qkv or 0.0,
            "logit_scale": scale,
        }
        return TransformerSpec(fields)

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[MPTConfig, ParameterNames]:
        gguf = gguf_config(file, "mpt")
        gguf.require(["context_length"])
        arguments = common_arguments(file, gguf)
        inner, width = arguments.pop("intermediate_width"), arguments["hidden_width"]
        alibi = gguf.get("attention.max_alibi_bias", 0.0)
        config = MPTConfig(
            n_attention_heads=arguments.pop("n_query_heads"),
            intermediate_width_multiplier=whole_number(inner / width),
            model_max_length=arguments.pop("n_positions"),
            use_bias="blk.0.attn_qkv.bias" in file.infos,
            use_alibi=alibi > 0,
            alibi_max_bias=alibi or 8.0,
            use_learned_positions="position_embd.weight" in file.infos,
            clip_qkv=gguf.get("attention.clamp_kqv") or None,
            use_qk_norm="blk.0.attn_q_norm.weight" in file.infos,
            tie_word_embeddings=None,
            **arguments,
        )
        return config, GGUF_NAMES


def _key_value_heads(hf: HFConfig) -> int:
    kind = hf.get("attn_config.attn_type", "multihead_attention")
    heads = hf.read(HFKey("attn_config.kv_n_heads", "n_key_value_heads", whole_number, None))
    implied = {"multihead_attention": hf["n_heads"], "multiquery_attention": 1}.get(kind)
    if implied is not None:
        if heads not in (None, implied):
            raise ValueError(
                f"MPT config.json: attn_config.kv_n_heads = {heads} does not go with {kind!r}"
            )
        return whole_number(implied)
    if kind != "grouped_query_attention":
        raise ValueError(f"MPT config.json: attn_config.attn_type = {kind!r} is not supported")
    if heads is None:
        raise ValueError(f"MPT config.json: attn_config.attn_type = {kind!r} needs kv_n_heads")
    return int(heads)


class MPTDecoder(MPT, TransformerDecoder[MPTConfig]):
    """MPT without its output head."""
