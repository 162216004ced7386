"""Where the quantizers will be."""

from __future__ import annotations

from typing import Any, NoReturn

from .config import BitsAndBytesConfig


def prepare_for_quantization(module: Any, config: BitsAndBytesConfig) -> NoReturn:
    """Not there yet: raises ``NotImplementedError``."""
    raise NotImplementedError(
        f"{type(module).__name__} cannot be quantized: this package has the configurations of "
        "8-bit and 4-bit quantization, but no quantizers yet"
    )
