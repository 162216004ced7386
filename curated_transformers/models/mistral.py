"""Mistral (Jiang et al. 2023): Llama with a sliding window in all layers, where it has one.

GGUF files call it ``llama`` and are loaded by Llama's classes.
"""

from __future__ import annotations

from typing import Any

from .hf_hub.conversion import HFConfig, HFKey, count
from .llama.config import LlamaConfig
from .llama.decoder import Llama, llama_keys
from .transformer import TransformerCausalLM, TransformerDecoder


class MistralConfig(LlamaConfig):
    """Widths, counts and options of a Mistral model, as Llama's."""


class Mistral(Llama[MistralConfig]):
    """What decoder and causal language model share."""

    model_types = ("mistral",)
    hf_label = "Mistral"
    hf_class = "Mistral"
    config_class = MistralConfig
    # Without the key there is a window, and with null there is none.
    hf_keys = (
        *llama_keys(kv_heads=8),
        HFKey("sliding_window", "window", count, 4096, nullable=True),
    )
    gguf_architecture = None

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        # Models whose layers differ are of another type.
        hf.refuse("layer_types", None)
        return super().arguments_from_hf(hf)


class MistralDecoder(Mistral, TransformerDecoder[MistralConfig]):
    """Mistral without its output head."""


class MistralCausalLM(Mistral, TransformerCausalLM[MistralConfig]):
    """Mistral as a causal language model."""
