"""Tokenizer and model from one place, in the generator that knows the model's form of prompts."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..checkpoint import is_gguf
from ..models.auto_model import AutoCausalLM, UnsupportedModelError
from ..repository import (
    HfHubRepository,
    LocalRepository,
    ModelRepository,
    Repository,
)
from ..repository.loading import LoadsOthers
from .default_generator import DefaultGenerator
from .dolly_v2 import DollyV2Generator
from .falcon import FalconGenerator
from .hf_hub import FromHF
from .llama import LlamaGenerator
from .mpt import MPTGenerator

#: Part of a repository's name -> its generator; the first that is found counts.
_BY_NAME: dict[str, type[DefaultGenerator]] = {
    "dolly-v2": DollyV2Generator,
    "falcon": FalconGenerator,
    "llama": LlamaGenerator,
    "mpt": MPTGenerator,
}


class AutoGenerator(LoadsOthers[DefaultGenerator]):
    """Loads a generator for a model of any supported architecture.

    The name of the repository, folder or file chooses it: Dolly v2, Falcon, Llama and MPT have
    their own; every other causal language model has a ``DefaultGenerator``. ``device``, ``dtype``
    and ``quantization_config`` are those of the model.
    """

    @classmethod
    def from_repo(
        cls,
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> DefaultGenerator:
        """Loads tokenizer and model of a repository.

        Raises ``OSError`` without a readable config.json, ``ValueError`` for what is no causal
        language model of a registered architecture, and what loading tokenizer or model raises.
        """
        try:
            AutoCausalLM.class_for_repo(repo)
        except UnsupportedModelError as error:
            raise _unsupported(_name_of(repo), error) from error
        return _generator_for(_name_of(repo)).from_repo(
            repo=repo, device=device, dtype=dtype, quantization_config=quantization_config
        )

    @classmethod
    def from_path(
        cls,
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> DefaultGenerator:
        """Loads a folder as ``from_repo`` does, or a GGUF file with its tokenizer."""
        if not is_gguf(path):
            return cls.from_repo(
                repo=LocalRepository(path),
                device=device,
                dtype=dtype,
                quantization_config=quantization_config,
            )
        name = Path(path).name
        try:
            return _generator_for(name).from_path(
                path, device=device, dtype=dtype, quantization_config=quantization_config
            )
        except UnsupportedModelError as error:
            raise _unsupported(name, error) from error

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds tokenizer and model."""
        FromHF.from_hf_hub_to_cache(name=name, revision=revision)


def _name_of(repo: Repository) -> str:
    if isinstance(repo, ModelRepository):
        return _name_of(repo.repo)
    if isinstance(repo, HfHubRepository):
        return repo.name
    if isinstance(repo, LocalRepository):
        return repo.path.resolve().name
    return repo.pretty_path().rstrip("/").rpartition("/")[2]


def _generator_for(name: str) -> type[DefaultGenerator]:
    found = (kind for part, kind in _BY_NAME.items() if part in name.lower())
    return next(found, DefaultGenerator)


def _unsupported(name: str, error: ValueError) -> ValueError:
    variants = [*_BY_NAME, "any other causal language model of a supported architecture"]
    return ValueError(
        f"Unsupported generator model `{name}`. Supported model variants: {variants}: {error}"
    )
