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
from .gemma import (
    Gemma2CausalLM,
    Gemma2Config,
    Gemma2Decoder,
    Gemma3CausalLM,
    Gemma3Config,
    Gemma3Decoder,
    GemmaCausalLM,
    GemmaConfig,
    GemmaDecoder,
)
from .gpt_neox import GPTNeoXCausalLM, GPTNeoXConfig, GPTNeoXDecoder
from .hf_hub import FromHF
from .llama import LlamaCausalLM, LlamaConfig, LlamaDecoder
from .mistral import MistralCausalLM, MistralConfig, MistralDecoder
from .modernbert import ModernBERTConfig, ModernBERTEncoder
from .module import CausalLMModule, DecoderModule, EncoderModule, TransformerModule
from .mpnet import MPNetEncoder
from .output import CausalLMOutputWithCache, ModelOutput, ModelOutputWithCache
from .phi3 import Phi3CausalLM, Phi3Config, Phi3Decoder
from .qwen2 import Qwen2CausalLM, Qwen2Config, Qwen2Decoder
from .qwen3 import Qwen3CausalLM, Qwen3Config, Qwen3Decoder
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
    "Gemma2CausalLM",
    "Gemma2Config",
    "Gemma2Decoder",
    "Gemma3CausalLM",
    "Gemma3Config",
    "Gemma3Decoder",
    "GemmaCausalLM",
    "GemmaConfig",
    "GemmaDecoder",
    "LlamaCausalLM",
    "LlamaConfig",
    "LlamaDecoder",
    "MPNetEncoder",
    "MistralCausalLM",
    "MistralConfig",
    "MistralDecoder",
    "ModelOutput",
    "ModelOutputWithCache",
    "ModernBERTConfig",
    "ModernBERTEncoder",
    "Phi3CausalLM",
    "Phi3Config",
    "Phi3Decoder",
    "Qwen2CausalLM",
    "Qwen2Config",
    "Qwen2Decoder",
    "Qwen3CausalLM",
    "Qwen3Config",
    "Qwen3Decoder",
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
