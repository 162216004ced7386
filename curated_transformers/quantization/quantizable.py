"""Which models can be quantized, and the entry to it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from .bnb.config import BitsAndBytesConfig
from .bnb.impl import prepare_for_quantization


class Quantizable:
    """Mixin of models whose linear layers can be quantized while they are loaded."""

    @classmethod
    @abstractmethod
    def modules_to_not_quantize(cls) -> set[str]:
        """The full dotted paths of modules to leave alone; an empty set quantizes all."""
        raise NotImplementedError


def prepare_module_for_quantization(module: Any, config: BitsAndBytesConfig) -> Any:
    """Prepares a model for the quantizer that ``config`` belongs to.

    Raises ``TypeError`` for another kind of configuration. There is no quantizer yet:
    ``NotImplementedError``.
    """
    if not isinstance(config, BitsAndBytesConfig):
        raise TypeError(
            f"the quantization config must be a BitsAndBytesConfig, is: {type(config).__name__}"
        )
    return prepare_for_quantization(module, config)
