"""Rotary embeddings: from config.json to the angles, in radians per position for each pair of
features, as float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .hf_hub.conversion import HFConfig, number, whole_number

Frequencies = npt.NDArray[np.float32]

#: Types of scaling and the keys that each needs.
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("original_max_position_embeddings",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": ("factor", "short_factor", "original_max_position_embeddings"),
}
# The same under the names of older files.
_ALIASES = {"su": "longrope"}


@dataclass(frozen=True)
class Rotary:
    """``frequencies`` of each pair; cosine and sine are multiplied by ``factor``; from position
    ``limit`` on the angles would be others (None: never)."""

    frequencies: Frequencies
    factor: float = 1.0
    limit: int | None = None


def rotary_frequencies(width: int, base: float) -> Frequencies:
    """``base ** (-2 i / width)`` (Su et al. 2021)."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies: Frequencies = 1 / np.power(np.float32(base), exponents)
    return frequencies


@dataclass(frozen=True)
class Rope:
    """What config.json says: the base, the fraction of each head that rotates (None: it does not
    say), and the scaling, empty where there is none."""

    base: float
    fraction: float | None
    scaling: dict[str, Any]


def read_rope(
    config: HFConfig, default_base: float, found: Mapping[str, Any] | None = None
) -> Rope:
    """``found``, or else ``rope_parameters`` (newer) or ``rope_theta`` and ``rope_scaling``.

    Where a file has both, transformers lets the older one win, and so do we. What files leave out
    of the scaling is filled in from the lengths. Raises ``ValueError`` for a type that is not
    supported and for missing or broken values.
    """
    if found is None:
        found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{config.label} config.json: rope_scaling is not an object: {found!r}")
    scaling = {key: value for key, value in found.items() if value is not None}
    base = _positive(config, "rope_theta", scaling.pop("rope_theta", None), default_base)
    fraction = scaling.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    if fraction is not None:
        fraction = _positive(config, "partial_rotary_factor", fraction, 1.0)
    kind = scaling.pop("type", scaling.get("rope_type", "default"))
    kind = scaling["rope_type"] = _ALIASES.get(kind, kind)
    if kind == "default":
        return Rope(base, fraction, {})
    # What the angles were trained for, when nothing says so, is what the model allows.
    longest = config.get("max_position_embeddings")
    trained = config.get(
        "original_max_position_embeddings", scaling.get("original_max_position_embeddings", longest)
    )
    if trained is not None:
        scaling["original_max_position_embeddings"] = trained
        if longest is not None and trained:
            scaling.setdefault("factor", longest / trained)
    _check(config.label, kind, scaling)
    return Rope(base, fraction, scaling)


def write_rope(base: float, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of config.json that ``read_rope`` reads."""
    return {"rope_theta": base, "rope_scaling": dict(scaling) or None}


def _positive(config: HFConfig, name: str, value: Any, default: float) -> float:
    try:
        result = number(config.get(name, default) if value is None else value)
    except ValueError as error:
        raise ValueError(f"{config.label} config.json: {name} {error}") from None
    if not result > 0:
        raise ValueError(f"{config.label} config.json: {name} must be positive, was: {result}")
    return result


def _check(label: str, kind: Any, scaling: Mapping[str, Any]) -> None:
    if kind not in _REQUIRED:
        raise ValueError(
            f"{label} config.json: rotary scaling of type `{kind}` is not supported, only "
            + ", ".join(_REQUIRED)
        )
    for key in _REQUIRED[kind]:
        if key not in scaling:
            raise ValueError(f"{label} config.json: rotary scaling `{kind}` needs `{key}`")
        try:
            if key == "original_max_position_embeddings":
                positive = whole_number(scaling[key]) > 0
            elif key == "short_factor":
                positive = all(number(value) > 0 for value in scaling[key])
            else:
                positive = number(scaling[key]) > 0
        except (TypeError, ValueError) as error:
            raise ValueError(f"{label} config.json: rotary scaling: {key} {error}") from None
        if not positive:
            raise ValueError(f"{label} config.json: rotary scaling: {key} must be positive")


def make_rotary(width: int, base: float, scaling: Mapping[str, Any]) -> Rotary:
    """The angles of ``width`` features with the scaling that ``read_rope`` gave."""
    frequencies = rotary_frequencies(width, base)
    kind = scaling.get("rope_type", "default")
    if kind == "linear":
        return Rotary(frequencies / np.float32(scaling["factor"]))
    if kind == "dynamic":
        # The base grows with the sequence, but only beyond the length of the training.
        return Rotary(frequencies, limit=scaling["original_max_position_embeddings"])
    if kind == "llama3":
        return Rotary(_llama3(frequencies, scaling))
    if kind == "yarn":
        return Rotary(_yarn(width, base, frequencies, scaling), _yarn_factor(scaling))
    if kind == "longrope":
        return _longrope(frequencies, scaling)
    return Rotary(frequencies)


def _llama3(frequencies: Frequencies, scaling: Mapping[str, Any]) -> Frequencies:
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


def _yarn(
    width: int, base: float, frequencies: Frequencies, scaling: Mapping[str, Any]
) -> Frequencies:
    # Peng et al. 2023: pairs that turn often within the trained length keep their angles, those
    # that turn less than once are divided by the factor, with a ramp between.
    trained = scaling["original_max_position_embeddings"]

    def pair_that_turns(times: float) -> float:
        return width * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))

    low = pair_that_turns(scaling.get("beta_fast") or 32)
    high = pair_that_turns(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    pairs = np.arange(width // 2, dtype=np.float32)
    ramp = np.clip((pairs - low) / (high - low if high != low else 0.001), 0, 1)
    interpolated = frequencies / np.float32(scaling["factor"])
    mixed: Frequencies = (interpolated * ramp + frequencies * (1 - ramp)).astype(np.float32)
    return mixed


def _yarn_factor(scaling: Mapping[str, Any]) -> float:
    if "attention_factor" in scaling:
        return float(scaling["attention_factor"])

    factor = float(scaling["factor"])

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return float(scale(scaling["mscale"]) / scale(scaling["mscale_all_dim"]))
    return scale(1.0)


def _longrope(frequencies: Frequencies, scaling: Mapping[str, Any]) -> Rotary:
    # Ding et al. 2024. Sequences longer than the trained length would take other factors from their
    # first position on, while cached keys have the old ones; they are refused.
    trained, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    short = np.asarray(scaling["short_factor"], dtype=np.float32)
    if short.shape != frequencies.shape:
        raise ValueError(
            f"rotary scaling `longrope` has {short.size} factors for {frequencies.size} pairs"
        )
    grown = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return Rotary(frequencies / short, float(scaling.get("attention_factor", grown)), limit=trained)
