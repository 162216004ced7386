"""Encoders, decoders and causal language models."""

from .auto_model import AutoCausalLM, AutoDecoder, AutoEncoder
from .bert import BERTConfig, BERTEncoder
from .gpt_neox import GPTNeoXCausalLM, GPTNeoXConfig, GPTNeoXDecoder
from .llama import LlamaCausalLM, LlamaConfig, LlamaDecoder
from .module import CausalLMModule, DecoderModule, EncoderModule
from .output import CausalLMOutputWithCache, ModelOutput, ModelOutputWithCache

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
    "GPTNeoXCausalLM",
    "GPTNeoXConfig",
    "GPTNeoXDecoder",
    "LlamaCausalLM",
    "LlamaConfig",
    "LlamaDecoder",
    "ModelOutput",
    "ModelOutputWithCache",
]
