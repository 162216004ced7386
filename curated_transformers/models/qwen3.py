"""Qwen3 (Yang et al. 2025): Llama with a norm of each query and key head, and with a sliding window
in the upper layers, where it is switched on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .hf_hub.conversion import HFKey, flag
from .llama.config import LlamaConfig
from .llama.decoder import Llama
from .qwen2 import Qwen, qwen_keys
from .spec import TransformerSpec
from .transformer import TransformerCausalLM, TransformerDecoder


class Qwen3Config(LlamaConfig):
    """Widths, counts and options of a Qwen3 model, as Llama's."""


class Qwen3(Qwen[Qwen3Config]):
    """What decoder and causal language model share."""

    model_types = ("qwen3",)
    hf_label = "Qwen3"
    hf_class = "Qwen3"
    config_class = Qwen3Config
    hf_keys = (
        *qwen_keys(head_width=128),
        HFKey("attention_bias", "use_attention_bias", flag, False),
    )
    gguf_architecture = "qwen3"
    parameter_names = replace(
        Llama.parameter_names,
        layer={
            **Llama.parameter_names.layer,
            "self_attn.q_norm": "query_norm",
            "self_attn.k_norm": "key_norm",
        },
    )

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        spec = super().spec_from_config(config)
        spec.fields["qk_norm"] = "head"
        return spec


class Qwen3Decoder(Qwen3, TransformerDecoder[Qwen3Config]):
    """Qwen3 without its output head."""


class Qwen3CausalLM(Qwen3, TransformerCausalLM[Qwen3Config]):
    """Qwen3 as a causal language model."""
