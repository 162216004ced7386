"""Phi-3 and Phi-4 (Abdin et al. 2024): Llama with fused matrices and, beyond some length, other
rotary angles, which are refused (see `models.rotary`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..checkpoint import GGUFFile
from .gguf import GGUF_NAMES
from .hf_hub.conversion import HFConfig, HFKey, count, number
from .llama.config import LlamaConfig
from .llama.decoder import Llama, llama_keys
from .parameters import ParameterNames
from .transformer import TransformerCausalLM, TransformerDecoder

_GATE_AND_UP = ("ffn_gate", "ffn_up")


class Phi3Config(LlamaConfig):
    """Widths, counts and options of a Phi-3 model: Llama's, and the dropout of embeddings."""

    def __init__(self, *, embedding_dropout_prob: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.embedding.dropout_prob = embedding_dropout_prob


class Phi3(Llama[Phi3Config]):
    """What decoder and causal language model share."""

    model_types = ("phi3",)
    hf_label = "Phi-3"
    hf_class = "Phi3"
    config_class = Phi3Config
    hf_keys = (
        *llama_keys(),
        HFKey("resid_pdrop", "hidden_dropout_prob", number, 0.0),
        HFKey("embd_pdrop", "embedding_dropout_prob", number, 0.0),
        HFKey("sliding_window", "window", count, None),
    )
    gguf_architecture = "phi3"
    gguf_interleaved = False
    parameter_names = replace(
        Llama.parameter_names,
        layer={
            "input_layernorm": "attention_input_norm",
            "post_attention_layernorm": "ffn_input_norm",
            "self_attn.qkv_proj": "qkv",
            "self_attn.o_proj": "attention_output",
            "mlp.gate_up_proj": _GATE_AND_UP,
            "mlp.down_proj": "ffn_down",
        },
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        arguments = super().arguments_from_hf(hf)
        kind = arguments["rope_scaling"].get("rope_type")
        if kind is not None:
            # What other types mean for Phi-3 has changed over time.
            if kind != "longrope":
                raise ValueError(
                    f"{hf.label} config.json: rotary scaling of type `{kind}` is not supported, "
                    "only longrope"
                )
            hf.require(["original_max_position_embeddings"])
        return arguments

    @classmethod
    def values_to_hf(cls, config: Any) -> dict[str, Any]:
        key = "original_max_position_embeddings"
        return super().values_to_hf(config) | {key: config.rope_scaling.get(key)}

    @classmethod
    def from_gguf_metadata(cls, file: GGUFFile) -> tuple[Any, ParameterNames]:
        config, _ = super().from_gguf_metadata(file)
        layer = {name: role for name, role in GGUF_NAMES.layer.items() if name != "ffn_gate"}
        return config, replace(GGUF_NAMES, layer=layer | {"ffn_up": _GATE_AND_UP})


class Phi3Decoder(Phi3, TransformerDecoder[Phi3Config]):
    """Phi-3 without its output head."""


class Phi3CausalLM(Phi3, TransformerCausalLM[Phi3Config]):
    """Phi-3 as a causal language model."""
