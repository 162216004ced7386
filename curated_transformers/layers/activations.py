"""Activation functions by the names that configurations use.

The core computes them inside its layers. The classes here state the same functions in NumPy, for
callers who want one by itself.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_erf = np.frompyfunc(math.erf, 1, 1)  # NumPy has none of its own


class ActivationFunction:
    """A function of each element: takes a tensor, array or nested list of any shape, computes in
    float32, returns a NumPy array of float32."""

    def __call__(self, input: Any) -> Array:
        """The function of every element."""
        with np.errstate(over="ignore"):  # exp of a large number: its reciprocal is 0 as it should
            return np.asarray(self._compute(np.asarray(input, dtype=np.float32)), np.float32)

    def _compute(self, x: Array) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ReLU(ActivationFunction):
    """max(0, x)."""

    def _compute(self, x: Array) -> Any:
        return np.maximum(x, np.float32(0))


class GELU(ActivationFunction):
    """x / 2 (1 + erf(x / sqrt 2)), exactly."""

    def _compute(self, x: Array) -> Any:
        erf = np.asarray(_erf(x * np.float32(math.sqrt(0.5))), dtype=np.float32)
        return np.float32(0.5) * x * (1 + erf)


class GELUFast(ActivationFunction):
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""

    def _compute(self, x: Array) -> Any:
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return np.float32(0.5) * x * (1 + np.tanh(inner))


class GELUNew(GELUFast):
    """The same function under the name of other configurations."""


class SiLU(ActivationFunction):
    """x / (1 + exp(-x))."""

    def _compute(self, x: Array) -> Any:
        return x / (1 + np.exp(-x))


_FUNCTIONS: dict[str, tuple[str, type[ActivationFunction]]] = {
    "relu": ("relu", ReLU),
    "gelu": ("gelu", GELU),
    "gelu_fast": ("gelu_tanh", GELUFast),
    "gelu_new": ("gelu_tanh", GELUNew),
    "silu": ("silu", SiLU),
}


class Activation(Enum):
    """An activation function. ``Activation("gelu")``; another name is a ``ValueError``."""

    ReLU = "relu"
    GELU = "gelu"
    GELUFast = "gelu_fast"
    GELUNew = "gelu_new"
    SiLU = "silu"

    @classmethod
    def _missing_(cls, value: object) -> Activation:
        supported = ", ".join(sorted(member.value for member in cls))
        raise ValueError(f"Invalid activation function `{value}`. Supported functions: {supported}")

    @property
    def core_name(self) -> str:
        """The core's name of the same function."""
        return _FUNCTIONS[self.value][0]

    @property
    def module(self) -> type[ActivationFunction]:
        """The class that computes it: ``Activation.GELU.module()(x)``."""
        return _FUNCTIONS[self.value][1]
