"""Gemma 1 to 3, text only (Gemma Team 2024, 2025).

What they add to Llama: embeddings scaled by the root of their width, norms whose checkpoints hold
the weight less 1, a tied head. Gemma 2 adds norms after attention and feed-forward, alternating
local layers and soft caps; Gemma 3 norms of queries and keys instead of caps, and rotary angles of
their own for local layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from .._core import Tensor
from ..checkpoint import GGUFFile
from ..layers.activations import Activation
from .gguf import GGUF_NAMES, decoder_arguments, gguf_config
from .hf_hub.conversion import (
    HFConfig,
    HFKey,
    activation,
    activation_name,
    count,
    flag,
    positive,
)
from .layer_types import read_layer_types, write_layer_types
from .llama.config import LlamaConfig
from .llama.decoder import Llama, llama_keys
from .parameters import ParameterNames
from .rotary import Rope, read_rope, rotary_frequencies
from .spec import TransformerSpec, add_window
from .transformer import TransformerCausalLM, TransformerDecoder


class GemmaConfig(LlamaConfig):
    """Widths, counts and options of a Gemma model, as Llama's."""


class Gemma2Config(GemmaConfig):
    """Gemma's, and: scores are divided by the root of ``query_scale`` and kept below
    ``attention_softcap``, logits below ``logit_softcap``, where they are not None."""

    def __init__(
        self,
        *,
        query_scale: float = 256.0,
        attention_softcap: float | None = None,
        logit_softcap: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.query_scale = query_scale
        self.attention_softcap = attention_softcap
        self.logit_softcap = logit_softcap


class Gemma3Config(Gemma2Config):
    """Gemma 2's, and: local layers rotate with the base ``local_rotary_base``, unscaled."""

    def __init__(self, *, local_rotary_base: float = 10000.0, **options: Any) -> None:
        super().__init__(**options)
        self.local_rotary_base = local_rotary_base


GemmaConfigT = TypeVar("GemmaConfigT", bound=GemmaConfig)
Gemma2ConfigT = TypeVar("Gemma2ConfigT", bound=Gemma2Config)


def _plus_one(weight: Tensor) -> Tensor:
    # In f32: bf16 has no room for the sum.
    return Tensor(weight.to(dtype="float32").numpy() + np.float32(1))


def _rounded(value: float, dtype: str) -> float:
    rounded = Tensor(np.asarray([value], dtype=np.float32)).to(dtype=dtype)
    return float(rounded.to(dtype="float32").item())


def _gelu_as_tanh(name: Any) -> Activation:
    # The first releases said `gelu` and meant the approximation.
    return activation("gelu_pytorch_tanh" if name == "gelu" else name)


def _tanh_as_gelu(value: Activation) -> str:
    # The name that Gemma's files have for it.
    return "gelu_pytorch_tanh" if value is Activation.GELUNew else activation_name(value)


def _whole(value: float) -> int | float:
    # transformers takes a whole number only.
    return int(value) if value.is_integer() else value


def _names(model: Mapping[str, str], layer: Mapping[str, Any]) -> ParameterNames:
    names = replace(Llama.parameter_names, model=model, layer=layer)
    norms = {role for role in (*model.values(), *layer.values()) if role.endswith("_norm")}
    return replace(names, transforms={f"{role}.weight": _plus_one for role in norms})


def _keys(kv_heads: int, activation_key: HFKey) -> tuple[HFKey, ...]:
    return (
        *(key for key in llama_keys(kv_heads, 256) if key.name != "hidden_act"),
        activation_key,
        HFKey("attention_bias", "use_attention_bias", flag, False),
    )


_WINDOW = HFKey("sliding_window", "window", count, 4096)


class Gemma(Llama[GemmaConfigT]):
    """What decoder and causal language model share."""

    model_types = ("gemma",)
    hf_label = "Gemma"
    hf_class = "Gemma"
    config_class = GemmaConfig
    hf_keys = _keys(
        16, HFKey("hidden_act", "activation", _gelu_as_tanh, Activation.GELUNew, _tanh_as_gelu)
    )
    hf_refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_activation": ("gelu_pytorch_tanh", "gelu_new"),
        "use_bidirectional_attention": (False,),
    }
    gguf_architecture = "gemma"
    #: Of how many layers the last is global; 0: none is local.
    period: ClassVar[int] = 0
    gguf_interleaved = False
    parameter_names = _names(Llama.parameter_names.model, Llama.parameter_names.layer)

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        spec = super().spec_from_config(config)
        width = config.layer.feedforward.hidden_width
        # The core refuses widths below 1.
        spec.fields["embedding_scale"] = _rounded(max(width, 1) ** 0.5, config.dtype)
        return spec

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[Any, ParameterNames]:
        # The norms' weights come with 1 added.
        assert cls.gguf_architecture is not None
        return cls.config_class(**cls.arguments_from_gguf(file, cls.gguf_architecture)), GGUF_NAMES

    @classmethod
    def arguments_from_gguf(cls, file: GGUFFile, architecture: str) -> dict[str, Any]:
        """Arguments of the configuration."""
        return {
            "activation": Activation.GELUNew,
            **decoder_arguments(file, architecture, cls.period),
        }


class Gemma2(Gemma[Gemma2ConfigT]):
    """What decoder and causal language model share."""

    model_types = ("gemma2",)
    hf_label = "Gemma 2"
    hf_class = "Gemma2"
    config_class = Gemma2Config
    hf_keys = (
        *_keys(
            4,
            HFKey("hidden_activation", "activation", activation, Activation.GELUNew, _tanh_as_gelu),
        ),
        HFKey("query_pre_attn_scalar", "query_scale", positive, 256.0, _whole),
        HFKey("attn_logit_softcapping", "attention_softcap", positive, 50.0, nullable=True),
        HFKey("final_logit_softcapping", "logit_softcap", positive, 30.0, nullable=True),
        _WINDOW,
    )
    hf_refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {"use_bidirectional_attention": (False,)}
    gguf_architecture = "gemma2"
    period = 2
    #: The depth of the one model whose scores are not scaled by the width of its heads.
    gguf_deepest: ClassVar[int] = 46
    parameter_names = _names(
        Llama.parameter_names.model,
        {
            **Llama.parameter_names.layer,
            "post_attention_layernorm": "attention_output_norm",
            "pre_feedforward_layernorm": "ffn_input_norm",
            "post_feedforward_layernorm": "ffn_output_norm",
        },
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        period = cls.period_from_hf(hf)
        layer_types = read_layer_types(hf, hf.read(_WINDOW), lambda i: (i + 1) % period != 0)
        return super().arguments_from_hf(hf) | layer_types

    @classmethod
    def period_from_hf(cls, hf: HFConfig) -> int:
        """Of how many layers the last is global."""
        return cls.period

    @classmethod
    def values_to_hf(cls, config: Any) -> dict[str, Any]:
        return super().values_to_hf(config) | write_layer_types(config)

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        spec = super().spec_from_config(config)
        spec.fields |= {
            "attention_output_norm": 1,
            "ffn_output_norm": 1,
            "attention_scale": config.query_scale**-0.5,
            "attention_softcap": config.attention_softcap or 0.0,
            "logit_softcap": config.logit_softcap or 0.0,
        }
        return spec

    @classmethod
    def arguments_from_gguf(cls, file: GGUFFile, architecture: str) -> dict[str, Any]:
        gguf = gguf_config(file, architecture)
        arguments = super().arguments_from_gguf(file, architecture)
        scale = arguments["head_width"]
        if arguments["n_hidden_layers"] == cls.gguf_deepest:
            scale = arguments["hidden_width"] // arguments["n_query_heads"]
        return arguments | {
            "query_scale": float(scale),
            "attention_softcap": gguf.get("attn_logit_softcapping"),
            "logit_softcap": gguf.get("final_logit_softcapping"),
        }


class Gemma3(Gemma2[Gemma3Config]):
    """What decoder and causal language model share."""

    model_types = ("gemma3_text",)
    hf_label = "Gemma 3"
    hf_class = "Gemma3"
    config_class = Gemma3Config
    hf_keys = (
        *(key for key in Gemma2.hf_keys if not key.name.endswith("softcapping")),
        HFKey("final_logit_softcapping", "logit_softcap", positive, None),
    )
    hf_refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "use_bidirectional_attention": (False,),
        "attn_logit_softcapping": (None,),  # transformers ignores it here
    }
    gguf_architecture = "gemma3"
    period = 6
    gguf_deepest = 62
    parameter_names = _names(
        Gemma2.parameter_names.model,
        {
            **Gemma2.parameter_names.layer,
            "self_attn.q_norm": "query_norm",
            "self_attn.k_norm": "key_norm",
        },
    )

    @classmethod
    def period_from_hf(cls, hf: HFConfig) -> int:
        key = HFKey("sliding_window_pattern", "local_layers", count, cls.period)
        period: int = hf.read(key)
        return period

    @classmethod
    def rope_from_hf(cls, hf: HFConfig) -> Rope:
        scaling = hf.get("rope_scaling", {})
        if isinstance(scaling, dict):
            scaling = _rope_of(hf, "full_attention") | scaling
        return read_rope(hf, 1e6, scaling)

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        base = {"rope_theta": hf.get("rope_local_base_freq", 10000.0)}
        local = read_rope(hf, 10000.0, base | _rope_of(hf, "sliding_attention"))
        if local.scaling:
            raise ValueError(
                f"{hf.label} config.json: rotary scaling of sliding_attention is not supported"
            )
        return super().arguments_from_hf(hf) | {"local_rotary_base": local.base}

    @classmethod
    def values_to_hf(cls, config: Any) -> dict[str, Any]:
        values = super().values_to_hf(config)
        return values | {"rope_local_base_freq": config.local_rotary_base}

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        spec = super().spec_from_config(config)
        spec.fields["qk_norm"] = "head"
        if config.window is not None and "rotary_width" in spec.fields:
            n_layers = config.layer.n_hidden_layers
            spec = add_window(spec, config.window, config.local_layers or (True,) * n_layers)
            frequencies = rotary_frequencies(spec.fields["rotary_width"], config.local_rotary_base)
            spec.fields["rotary_local"] = 1
            spec.vectors["rotary.local_frequencies"] = frequencies
        return spec

    @classmethod
    def arguments_from_gguf(cls, file: GGUFFile, architecture: str) -> dict[str, Any]:
        gguf = gguf_config(file, architecture)
        base = gguf.get("rope.freq_base_swa", 10000.0)
        return super().arguments_from_gguf(file, architecture) | {"local_rotary_base": base}


def _rope_of(hf: HFConfig, layer_type: str) -> dict[str, Any]:
    # Newer files have an object for each type of layer.
    types = hf.get("rope_parameters", {})
    known = ("full_attention", "sliding_attention")
    if not isinstance(types, dict) or any(
        key not in known or not isinstance(value, dict | None) for key, value in types.items()
    ):
        raise ValueError(
            f"{hf.label} config.json: rope_parameters must hold objects named {' and '.join(known)}"
            f", was: {types!r}"
        )
    return dict(types.get(layer_type) or {})


class GemmaDecoder(Gemma[GemmaConfig], TransformerDecoder[GemmaConfig]):
    """Gemma without its output head."""


class GemmaCausalLM(Gemma[GemmaConfig], TransformerCausalLM[GemmaConfig]):
    """Gemma as a causal language model."""


class Gemma2Decoder(Gemma2[Gemma2Config], TransformerDecoder[Gemma2Config]):
    """Gemma 2 without its output head."""


class Gemma2CausalLM(Gemma2[Gemma2Config], TransformerCausalLM[Gemma2Config]):
    """Gemma 2 as a causal language model."""


class Gemma3Decoder(Gemma3, TransformerDecoder[Gemma3Config]):
    """Gemma 3 without its output head."""

    hf_class = "Gemma3Text"


class Gemma3CausalLM(Gemma3, TransformerCausalLM[Gemma3Config]):
    """Gemma 3 as a causal language model."""
