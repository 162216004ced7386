"""Activation functions by the names that configurations use."""

from __future__ import annotations

from enum import Enum

_CORE_NAMES = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
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
        return _CORE_NAMES[self.value]
