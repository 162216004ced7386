"""Loading generators from a folder, a file system, a repository or the Hugging Face Hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any, TypeVar

from ..models.auto_model import AutoCausalLM
from ..repository import HfHubRepository, Repository
from ..repository.loading import LoadsItself
from ..tokenizers import AutoTokenizer
from ..tokenizers.hf_hub import fetch

Self = TypeVar("Self", bound="FromHF")


class FromHF(LoadsItself, ABC):
    """Mixin of generators that are made of the tokenizer and the causal language model in one
    place.

    ``device``, ``dtype`` and ``quantization_config`` are those of the model.
    """

    @classmethod
    @abstractmethod
    def from_repo(
        cls: type[Self],
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads tokenizer and model of a repository. Raises what loading either of them does."""

    @classmethod
    @abstractmethod
    def from_path(
        cls: type[Self],
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads a folder as ``from_repo`` does, or a GGUF file with its tokenizer."""

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds tokenizer and model."""
        AutoTokenizer.from_hf_hub_to_cache(name=name, revision=revision)
        fetch(HfHubRepository(name, revision=revision), (), ("generation_config.json",))
        AutoCausalLM.from_hf_hub_to_cache(name=name, revision=revision)
