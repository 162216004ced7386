"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases of queries, keys and values, and with a
sliding window in the upper layers, where it is switched on."""

from __future__ import annotations

from typing import Any, TypeVar

from .hf_hub.conversion import HFConfig, HFKey, count, flag, whole_number
from .layer_types import read_layer_types, write_layer_types
from .llama.config import LlamaConfig
from .llama.decoder import Llama, llama_keys
from .spec import TransformerSpec
from .transformer import TransformerCausalLM, TransformerDecoder

ConfigT = TypeVar("ConfigT", bound=LlamaConfig)

_USE_WINDOW = HFKey("use_sliding_window", "window", flag, False)
_WINDOW = HFKey("sliding_window", "window", count, 4096, nullable=True)
_FIRST_LOCAL = HFKey("max_window_layers", "local_layers", whole_number, 28)


def qwen_keys(head_width: int | None = None) -> tuple[HFKey, ...]:
    """What the generations read."""
    return (*llama_keys(32, head_width, null_kv_heads=True), _WINDOW)


class Qwen(Llama[ConfigT]):
    """What the generations share: which layers see only a window."""

    gguf_interleaved = False

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        window = hf.read(_WINDOW) if hf.read(_USE_WINDOW) else None
        first = hf.read(_FIRST_LOCAL)
        layer_types = read_layer_types(hf, window, lambda i: window is not None and i >= first)
        return super().arguments_from_hf(hf) | layer_types

    @classmethod
    def values_to_hf(cls, config: Any) -> dict[str, Any]:
        use = {"use_sliding_window": config.window is not None}
        return super().values_to_hf(config) | write_layer_types(config) | use


class Qwen2Config(LlamaConfig):
    """Widths, counts and options of a Qwen2 model, as Llama's."""


class Qwen2(Qwen[Qwen2Config]):
    """What decoder and causal language model share."""

    model_types = ("qwen2",)
    hf_label = "Qwen2"
    hf_class = "Qwen2"
    config_class = Qwen2Config
    hf_keys = qwen_keys()
    gguf_architecture = "qwen2"

    @classmethod
    def spec_from_config(cls, config: Any) -> TransformerSpec:
        spec = super().spec_from_config(config)
        spec.fields["qkv_bias"] = 1
        return spec


class Qwen2Decoder(Qwen2, TransformerDecoder[Qwen2Config]):
    """Qwen2 without its output head."""


class Qwen2CausalLM(Qwen2, TransformerCausalLM[Qwen2Config]):
    """Qwen2 as a causal language model."""
