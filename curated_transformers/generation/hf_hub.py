"""Loading generators from a folder, a file system, a repository or the Hugging Face Hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any, TypeVar

from ..models.auto_model import AutoCausalLM
from ..repository import FsspecRepository, HfHubRepository, Repository
from ..tokenizers import AutoTokenizer
from ..tokenizers.hf_hub import fetch

Self = TypeVar("Self", bound="FromHF")


class FromHF(ABC):
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
    def from_fsspec(
        cls: type[Self],
        *,
        fs: Any,
        model_path: str,
        fsspec_args: Any = None,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads through an fsspec filesystem; otherwise as ``from_repo``."""
        return cls.from_repo(
            repo=FsspecRepository(fs, model_path, fsspec_args),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )

    @classmethod
    def from_hf_hub(
        cls: type[Self],
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads from the Hugging Face Hub; otherwise as ``from_repo``.

        ``revision`` is a branch, a tag or a commit.
        """
        return cls.from_repo(
            repo=HfHubRepository(name, revision=revision),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds tokenizer and model."""
        AutoTokenizer.from_hf_hub_to_cache(name=name, revision=revision)
        fetch(HfHubRepository(name, revision=revision), (), ("generation_config.json",))
        AutoCausalLM.from_hf_hub_to_cache(name=name, revision=revision)
