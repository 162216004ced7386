"""Encoders, decoders and causal language models."""

from .albert import ALBERTConfig, ALBERTEncoder
from .auto_model import AutoCausalLM, AutoDecoder, AutoEncoder
from .bert import BERTConfig, BERTEncoder
from .camembert import CamemBERTEncoder
from .config import (
    RotaryEmbeddingConfig,
    TransformerAttentionLayerConfig,
    TransformerConfig,
    TransformerEmbeddingLayerConfig,
    TransformerFeedForwardLayerConfig,
    TransformerLayerConfig,
)
from .distilbert import DistilBERTEncoder
from .electra import ELECTRAEncoder
from .gpt_neox import GPTNeoXCausalLM, GPTNeoXConfig, GPTNeoXDecoder
from .hf_hub import FromHF
from .llama import LlamaCausalLM, LlamaConfig, LlamaDecoder
from .modernbert import ModernBERTConfig, ModernBERTEncoder
from .module import CausalLMModule, DecoderModule, EncoderModule, TransformerModule
from .mpnet import MPNetEncoder
from .output import CausalLMOutputWithCache, ModelOutput, ModelOutputWithCache
from .roberta import RoBERTaConfig, RoBERTaEncoder
from .transformer import TransformerCausalLM, TransformerDecoder, TransformerEncoder
from .xlm_roberta import XLMREncoder

__all__ = [
    "ALBERTConfig",
    "ALBERTEncoder",
    "AutoCausalLM",
    "AutoDecoder",
    "AutoEncoder",
    "BERTConfig",
    "BERTEncoder",
    "CamemBERTEncoder",
    "CausalLMModule",
    "CausalLMOutputWithCache",
    "DecoderModule",
    "DistilBERTEncoder",
    "ELECTRAEncoder",
    "EncoderModule",
    "FromHF",
    "GPTNeoXCausalLM",
    "GPTNeoXConfig",
    "GPTNeoXDecoder",
    "LlamaCausalLM",
    "LlamaConfig",
    "LlamaDecoder",
    "MPNetEncoder",
    "ModelOutput",
    "ModelOutputWithCache",
    "ModernBERTConfig",
    "ModernBERTEncoder",
    "RoBERTaConfig",
    "RoBERTaEncoder",
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
    "XLMREncoder",
]
