"""Quantizing: one matrix, and models as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ... import _core
from ..._core import Tensor
from .config import BitsAndBytesConfig, Config4Bit, Dtype4Bit

#: The core's names of the formats.
FORMATS: Final = ("llm_int8", "fp4", "nf4")
_FLOATS = ("float32", "float16", "bfloat16")


def check_config(config: Any) -> BitsAndBytesConfig:
    """Raises ``TypeError`` for anything but a configuration."""
    if not isinstance(config, BitsAndBytesConfig):
        raise TypeError(
            f"the quantization config must be a BitsAndBytesConfig, is: {type(config).__name__}"
        )
    return config


def config_for(formats: Iterable[str]) -> BitsAndBytesConfig | None:
    """The configuration by which matrices of these formats are computed with where nothing else is
    said; None without any."""
    found = next(iter(formats), None)
    if found is None:
        return None
    if found == "llm_int8":
        return BitsAndBytesConfig.for_8bit()
    return BitsAndBytesConfig.for_4bit(Dtype4Bit(found))


def quantize_matrix(name: str, matrix: Tensor, config: BitsAndBytesConfig) -> Tensor:
    """A matrix ``[rows, columns]`` of floats or GGUF blocks in the format of ``config``, by way of
    float16.

    Raises ``ValueError`` that names the matrix when it cannot be quantized.
    """
    if matrix.dtype not in _FLOATS:
        matrix = matrix.to(dtype="float32")
    inner = config.inner
    nested = isinstance(inner, Config4Bit) and inner.double_quantization
    try:
        return _core.quantize(matrix, inner.format, nested=nested)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None


def prepare_for_quantization(module: Any, config: BitsAndBytesConfig) -> Any:
    """Quantizes the linear layers of a model, or, while it has no weights, sees to it that they
    are quantized when it gets them. Returns the model.

    Raises ``TypeError`` for another kind of configuration, ``ValueError`` for what is no model or
    one that is quantized already.
    """
    check_config(config)
    quantize = getattr(module, "quantize", None)
    if quantize is None:
        raise ValueError(f"Module of type `{type(module).__name__}` is not quantizable")
    return quantize(config)
