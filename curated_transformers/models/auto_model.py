"""Models whose architecture is read from config.json or from a GGUF file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ..checkpoint import GGUFFile
from ..registry import ModelRegistry, registry
from ..repository import cached_snapshot
from .module import CausalLMModule, DecoderModule, EncoderModule, TransformerModule, load_config

Module = TypeVar("Module", bound=TransformerModule)


class AutoModel(Generic[Module]):
    """Finds the registered class that supports a model."""

    registry: ClassVar[ModelRegistry]

    @classmethod
    def _resolve(cls, path: Path) -> Any:
        if path.suffix == ".gguf":
            architecture = GGUFFile(path).metadata.get("general.architecture")
            for _, found in cls.registry.classes():
                if architecture is not None and found.gguf_architecture == architecture:
                    return found
        else:
            config = load_config(path)
            for _, found in cls.registry.classes():
                if found.is_supported(config):
                    return found
        raise ValueError(
            f"Unsupported model type for `{cls.__name__}`. "
            f"Registered models: {', '.join(cls.registry.names())}"
        )

    @classmethod
    def from_path(
        cls,
        path: str | PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Module:
        """Loads a folder or a GGUF file. ``ValueError`` when no registered class supports it."""
        model: Module = cls._resolve(Path(path)).from_path(
            path, device=device, dtype=dtype, quantization_config=quantization_config
        )
        return model

    @classmethod
    def from_hf_hub(
        cls,
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        quantization_config: Any = None,
    ) -> Module:
        """Loads a model from the local Hugging Face cache."""
        return cls.from_path(
            cached_snapshot(name, revision), device=device, quantization_config=quantization_config
        )


class AutoEncoder(AutoModel[EncoderModule]):
    """An encoder of any registered architecture."""

    registry = registry.encoders


class AutoDecoder(AutoModel[DecoderModule]):
    """A decoder of any registered architecture."""

    registry = registry.decoders


class AutoCausalLM(AutoModel[CausalLMModule]):
    """A causal language model of any registered architecture."""

    registry = registry.causal_lms
