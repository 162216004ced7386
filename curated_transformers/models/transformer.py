"""Models that load from Hugging Face repositories: what all architectures of this package are."""

from __future__ import annotations

from ..quantization import Quantizable
from .hf_hub import FromHF
from .module import CausalLMModule, ConfigT, DecoderModule, EncoderModule


class TransformerEncoder(EncoderModule[ConfigT], FromHF[ConfigT], Quantizable):
    """An encoder."""

    @classmethod
    def modules_to_not_quantize(cls) -> set[str]:
        return set()


class TransformerDecoder(DecoderModule[ConfigT], FromHF[ConfigT], Quantizable):
    """A decoder without an output head."""

    @classmethod
    def modules_to_not_quantize(cls) -> set[str]:
        return set()


class TransformerCausalLM(CausalLMModule[ConfigT], FromHF[ConfigT], Quantizable):
    """A decoder with an output head, which is not quantized."""

    @classmethod
    def modules_to_not_quantize(cls) -> set[str]:
        return {"output_embeddings"}
