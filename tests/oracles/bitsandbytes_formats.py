"""The formats of bitsandbytes in NumPy, by the formulas: what LLM.int8, FP4 and NF4 make of a
matrix, what they stand for, and their products in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK, NESTED_BLOCK = 64, 256

# QLoRA, appendix E, as bitsandbytes has them.
NF4 = np.float32(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
_FP4 = np.float32([0, 0.0625, 8, 12, 4, 6, 2, 3]) / np.float32(12)
FP4 = np.concatenate([_FP4, -_FP4])
CODEBOOKS = {"nf4": NF4, "fp4": FP4}
# The constants of bitsandbytes' GPU code.
_FP4_MIDDLES = np.float32(
    [0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333]
)
_FP4_RISING = np.argsort(_FP4, kind="stable")


def as_f16(matrix: np.ndarray) -> np.ndarray:
    """What is quantized: values as float16 holds them, its largest in place of infinity."""
    return np.clip(np.float32(matrix), -65504, 65504).astype(np.float16).astype(np.float32)


@dataclass
class FourBit:
    """``codes [n]``, not packed, and ``absmax [blocks]`` as they count, nested or not."""

    format: str
    shape: tuple[int, ...]
    codes: np.ndarray
    absmax: np.ndarray
    nested: dict[str, Any] | None = None

    @property
    def packed(self) -> np.ndarray:
        pairs = self.codes.reshape(-1, 2)
        return (pairs[:, 0] << 4 | pairs[:, 1]).astype(np.uint8)

    @property
    def values(self) -> np.ndarray:
        scales = np.repeat(self.absmax, BLOCK)[: self.codes.size]
        return (CODEBOOKS[self.format][self.codes] * scales).reshape(self.shape)


def quantize_4bit(
    matrix: np.ndarray, format: str, dynamic_map: np.ndarray | None = None
) -> FourBit:
    """With the values of the 8-bit codes, scales are quantized as well."""
    values = as_f16(matrix).ravel()
    starts = range(0, values.size, BLOCK)
    absmax = np.float32([np.abs(values[i : i + BLOCK]).max() for i in starts])
    parts = []
    for i, largest in zip(starts, absmax, strict=True):
        block, least = values[i : i + BLOCK], max(largest, np.float32(1e-38))
        scaled = block / least if block.size < BLOCK else block * (np.float32(1) / least)
        parts.append(np.clip(scaled, -1, 1))
    scaled = np.concatenate(parts)
    if values.size % BLOCK:
        absmax[-1] = max(absmax[-1], np.float32(1e-38))
    if format == "nf4":
        middles = (NF4[:-1] + NF4[1:]) / np.float32(2)
        codes = np.searchsorted(middles, scaled, side="left")
    else:
        place = np.searchsorted(_FP4_MIDDLES, np.abs(scaled), side="left")
        codes = _FP4_RISING[place] + 8 * (scaled < 0)
    result = FourBit(format, matrix.shape, codes.astype(np.uint8), absmax)
    return result if dynamic_map is None else _nest(result, dynamic_map)


def _nest(plain: FourBit, dynamic_map: np.ndarray) -> FourBit:
    offset = np.float32(plain.absmax.astype(np.float64).mean())
    distances = plain.absmax - offset
    starts = range(0, distances.size, NESTED_BLOCK)
    largest = np.float32([np.abs(distances[i : i + NESTED_BLOCK]).max() for i in starts])
    middles = (dynamic_map[:-1] + dynamic_map[1:]) * np.float32(0.5)
    codes = []
    for i, most in zip(starts, largest, strict=True):
        factor = np.float32(1) / most if most else np.float32(0)
        scaled = distances[i : i + NESTED_BLOCK] * factor
        codes.append(np.searchsorted(middles, scaled, side="left"))
    absmax_codes = np.concatenate(codes).astype(np.uint8)
    products = dynamic_map[absmax_codes] * np.repeat(largest, NESTED_BLOCK)[: distances.size]
    nested = {"absmax": absmax_codes, "nested_absmax": largest, "offset": offset}
    return FourBit(plain.format, plain.shape, plain.codes, products + offset, nested)


def quantize_int8(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and the largest magnitude of each row."""
    values = as_f16(matrix)
    absmax = np.abs(values).max(axis=1)
    with np.errstate(divide="ignore"):
        scale = np.where(absmax > 0, np.float32(1) / absmax * np.float32(127), np.float32(0))
    return np.rint(values * scale[:, None]).astype(np.int8), absmax


def int8_values(codes: np.ndarray, absmax: np.ndarray) -> np.ndarray:
    """In float64."""
    return codes.astype(np.float64) * absmax[:, None] / 127


def int8_product(x: np.ndarray, codes: np.ndarray, absmax: np.ndarray, threshold: float):
    """LLM.int8 of each row of ``x`` on its own, in float64 from the codes on."""
    values = as_f16(x)
    outliers = np.abs(values) >= threshold if threshold else np.zeros(x.shape, bool)
    x_codes, x_absmax = quantize_int8(np.where(outliers, 0, values))
    inner = x_codes.astype(np.int64) @ codes.astype(np.int64).T
    inner = inner * (x_absmax[:, None].astype(np.float64) * absmax / 127**2)
    return inner + np.where(outliers, x, 0).astype(np.float64) @ int8_values(codes, absmax).T
