"""Tokenizer and model from one place."""

from __future__ import annotations

from os import PathLike
from typing import Any

from ..models.auto_model import AutoCausalLM
from ..repository import cached_snapshot
from ..tokenizers import AutoTokenizer
from .default_generator import DefaultGenerator


class AutoGenerator:
    """Loads a generator for a model of any supported architecture."""

    @classmethod
    def from_path(
        cls, path: str | PathLike[str], *, device: Any = None, quantization_config: Any = None
    ) -> DefaultGenerator:
        """From a folder, or a GGUF file with its tokenizer."""
        model = AutoCausalLM.from_path(path, device=device, quantization_config=quantization_config)
        return DefaultGenerator(AutoTokenizer.from_path(path), model)

    @classmethod
    def from_hf_hub(
        cls,
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        quantization_config: Any = None,
    ) -> DefaultGenerator:
        """From the local Hugging Face cache."""
        return cls.from_path(
            cached_snapshot(name, revision), device=device, quantization_config=quantization_config
        )
