"""Models whose architecture is read from config.json or from a GGUF file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from os import PathLike
from typing import Any, ClassVar, TypeVar

from ..checkpoint import GGUFFile, is_gguf
from ..registry import ModelRegistry, registry
from ..repository import (
    LocalRepository,
    ModelRepository,
    Repository,
)
from ..repository.loading import LoadsOthers
from .hf_hub import FromHF
from .hf_hub.mixin import hub_model_to_cache
from .module import CausalLMModule, DecoderModule, EncoderModule, TransformerModule

Module = TypeVar("Module", bound=TransformerModule[Any])


class UnsupportedModelError(ValueError):
    """No registered class supports a model."""


class AutoModel(LoadsOthers[Module]):
    """Finds the registered class that supports a model."""

    registry: ClassVar[ModelRegistry]
    base: ClassVar[type[Any]]

    @classmethod
    def _classes(cls) -> Iterator[Any]:
        for name, found in cls.registry.classes():
            if not (isinstance(found, type) and issubclass(found, FromHF)):
                warnings.warn(f"Model `{name}` cannot load from Hugging Face Hub", stacklevel=4)
            elif not issubclass(found, cls.base):
                warnings.warn(f"Model `{name}` cannot be used by `{cls.__name__}`", stacklevel=4)
            else:
                yield found

    @classmethod
    def _unsupported(cls, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"Unsupported model type for `{cls.__name__}`: {what}. "
            f"Registered models: {', '.join(cls.registry.names())}"
        )

    @classmethod
    def class_for_repo(cls, repo: Repository) -> Any:
        """The registered class for the model in a repository, by its config.json.

        Raises ``OSError`` without a readable config.json, ``UnsupportedModelError`` when no
        registered class supports it.
        """
        files = ModelRepository(repo)
        config = files.model_config()
        for found in cls._classes():
            if found.is_supported(config):
                return found
        if "model_type" not in config:
            raise cls._unsupported(f"{files.pretty_path('config.json')} has no model_type")
        kind, names = config["model_type"], config.get("architectures")
        raise cls._unsupported(f"{files.pretty_path()} has model_type `{kind}` ({names})")

    @classmethod
    def class_for_gguf(cls, file: GGUFFile) -> Any:
        """The registered class for the model in a GGUF file. Raises ``UnsupportedModelError`` when
        there is none."""
        architecture = file.metadata.get("general.architecture")
        for found in cls._classes():
            if architecture is not None and found.gguf_architecture == architecture:
                return found
        raise cls._unsupported(f"{file.path} has the architecture `{architecture}`")

    @classmethod
    def from_repo(
        cls,
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Module:
        """Loads the model in a repository.

        Raises ``OSError`` without a readable config.json, ``ValueError`` when no registered class
        supports it, and what loading that class raises.
        """
        found = cls.class_for_repo(repo)
        model: Module = found.from_repo(
            repo=repo, device=device, dtype=dtype, quantization_config=quantization_config
        )
        return model

    @classmethod
    def from_path(
        cls,
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Module:
        """Loads a folder as ``from_repo`` does, or a GGUF file."""
        if is_gguf(path):
            file = GGUFFile(path)
            found = cls.class_for_gguf(file)
            model: Module = found._from_gguf(file, device, dtype, quantization_config)
            return model
        return cls.from_repo(
            repo=LocalRepository(path),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds configuration and checkpoint."""
        hub_model_to_cache(name, revision)


class AutoEncoder(AutoModel[EncoderModule[Any]]):
    """An encoder of any registered architecture."""

    registry = registry.encoders
    base = EncoderModule


class AutoDecoder(AutoModel[DecoderModule[Any]]):
    """A decoder of any registered architecture."""

    registry = registry.decoders
    base = DecoderModule


class AutoCausalLM(AutoModel[CausalLMModule[Any]]):
    """A causal language model of any registered architecture."""

    registry = registry.causal_lms
    base = CausalLMModule
