"""Angles of rotary embeddings: radians per position for each pair of features, as float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import HFConfig

Frequencies = npt.NDArray[np.float32]


def rotary_frequencies(width: int, base: float) -> Frequencies:
    """``base ** (-2 i / width)`` (Su et al. 2021)."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies: Frequencies = 1 / np.power(np.float32(base), exponents)
    return frequencies


def rope_parameters(config: HFConfig, default_base: float) -> tuple[float, dict[str, Any]]:
    """Base and scaling from ``rope_parameters`` (newer) or ``rope_theta`` and ``rope_scaling``.

    Where a file has both, transformers lets the older one win, and so do we.
    """
    scaling = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    base = float(scaling.get("rope_theta", config.get("rope_theta", default_base)))
    # What the angles were trained for, when scaling does not say, is what the model allows.
    if "max_position_embeddings" in config.values:
        scaling.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    return base, scaling


def scale_frequencies(frequencies: Frequencies, scaling: dict[str, Any]) -> Frequencies:
    """Applies the scaling of config.json. ``ValueError`` names a type that is not supported."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return frequencies
    if kind == "linear":
        scaled: Frequencies = frequencies / np.float32(scaling["factor"])
        return scaled
    if kind == "llama3":
        return _llama3(frequencies, scaling)
    raise ValueError(
        f"rotary scaling of type `{kind}` is not supported, only default, linear, llama3"
    )


def _llama3(frequencies: Frequencies, scaling: dict[str, Any]) -> Frequencies:
    # Slow angles are divided by the factor, fast ones stay, those between are interpolated.
    factor = scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    smooth = (trained / wavelengths - low) / (high - low)
    between = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = np.where(wavelengths > trained / low, frequencies / factor, frequencies)
    medium = (wavelengths <= trained / low) & (wavelengths >= trained / high)
    return np.where(medium, between, scaled).astype(np.float32)
