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
    """Quantizes the linear layers of a model, or, while it has no weights, sees to it that they
    are quantized when it gets them. Returns the model.

    Raises ``TypeError`` for another kind of configuration, ``ValueError`` for what is no
    ``Quantizable`` model or one that is quantized already.
    """
    return prepare_for_quantization(module, config)
