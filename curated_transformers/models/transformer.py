"""Models that load from Hugging Face repositories: what all architectures of this package are."""

from __future__ import annotations

from .hf_hub import FromHF
from .module import CausalLMModule, ConfigT, DecoderModule, EncoderModule


class TransformerEncoder(EncoderModule[ConfigT], FromHF[ConfigT]):
    """An encoder."""


class TransformerDecoder(DecoderModule[ConfigT], FromHF[ConfigT]):
    """A decoder without an output head."""


class TransformerCausalLM(CausalLMModule[ConfigT], FromHF[ConfigT]):
    """A decoder with an output head."""
