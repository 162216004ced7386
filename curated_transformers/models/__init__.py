"""Encoders, decoders and causal language models."""

from .auto_model import AutoCausalLM, AutoDecoder, AutoEncoder
from .bert import BERTConfig, BERTEncoder
from .config import (
    RotaryEmbeddingConfig,
    TransformerAttentionLayerConfig,
    TransformerConfig,
    TransformerEmbeddingLayerConfig,
    TransformerFeedForwardLayerConfig,
    TransformerLayerConfig,
)
from .gpt_neox import GPTNeoXCausalLM, GPTNeoXConfig, GPTNeoXDecoder
from .hf_hub import FromHF
from .llama import LlamaCausalLM, LlamaConfig, LlamaDecoder
from .module import CausalLMModule, DecoderModule, EncoderModule, TransformerModule
from .output import CausalLMOutputWithCache, ModelOutput, ModelOutputWithCache
from .transformer import TransformerCausalLM, TransformerDecoder, TransformerEncoder

__all__ = [
    "AutoCausalLM",
    "AutoDecoder",
    "AutoEncoder",
    "BERTConfig",
    "BERTEncoder",
    "CausalLMModule",
    "CausalLMOutputWithCache",
    "DecoderModule",
    "EncoderModule",
    "FromHF",
    "GPTNeoXCausalLM",
    "GPTNeoXConfig",
    "GPTNeoXDecoder",
    "LlamaCausalLM",
    "LlamaConfig",
    "LlamaDecoder",
    "ModelOutput",
    "ModelOutputWithCache",
    "RotaryEmbeddingConfig",
    "TransformerAttentionLayerConfig",
    "TransformerCausalLM",
    "TransformerConfig",
    "TransformerDecoder",
    "TransformerEmbeddingLayerConfig",
    "TransformerEncoder",
    "TransformerFeedForwardLayerConfig",
    "TransformerLayerConfig",
    "TransformerModule",
]
