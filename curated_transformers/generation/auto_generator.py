"""Tokenizer and model from one place."""

from __future__ import annotations

from os import PathLike
from typing import Any

from ..models.auto_model import AutoCausalLM
from ..repository import HfHubRepository
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
        """From the Hugging Face Hub. ``revision`` is a branch, a tag or a commit."""
        repo = HfHubRepository(name, revision=revision)
        model = AutoCausalLM.from_repo(
            repo=repo, device=device, quantization_config=quantization_config
        )
        return DefaultGenerator(AutoTokenizer.from_repo(repo), model)

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds tokenizer and model."""
        AutoTokenizer.from_hf_hub_to_cache(name=name, revision=revision)
        AutoCausalLM.from_hf_hub_to_cache(name=name, revision=revision)
