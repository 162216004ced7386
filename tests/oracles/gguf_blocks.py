"""The block formats of GGUF files by NumPy alone: values of blocks, and plain rounding to blocks.

    make golden     # runs this file: writes tests/golden/gguf_blocks.npz

The stored values are those of the `gguf` package for blocks of random bytes, with which what is
here is compared, too. Rounding takes the scales that the extremes of a group give; the published
files were made by a search for better ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "golden" / "gguf_blocks.npz"

#: Number in a file, values and bytes of a block.
FORMATS = {
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
}


def half(raw: np.ndarray) -> np.ndarray:
    """[blocks, 2] bytes -> [blocks, 1] f32."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def half_bytes(values: np.ndarray) -> np.ndarray:
    return values.astype("<f2").view(np.uint8).reshape(len(values), 2)


# Values of blocks.


def decode(name: str, raw: np.ndarray) -> np.ndarray:
    """Bytes in whole blocks -> f32 values, flat."""
    blocks = raw.reshape(-1, FORMATS[name][2])
    with np.errstate(all="ignore"):  # scales may be infinite or NaN
        return DECODERS[name](blocks).astype(np.float32).ravel()


def nibbles(raw: np.ndarray) -> np.ndarray:
    return np.concatenate([raw & 15, raw >> 4], axis=-1).astype(np.int32)


def bits(raw: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(raw), axis=-1, bitorder="little").astype(np.int32)


def decode_q4_0(b: np.ndarray) -> np.ndarray:
    return half(b[:, :2]) * (nibbles(b[:, 2:]) - 8).astype(np.float32)


def decode_q4_1(b: np.ndarray) -> np.ndarray:
    return half(b[:, :2]) * nibbles(b[:, 4:]).astype(np.float32) + half(b[:, 2:4])


def decode_q5_0(b: np.ndarray) -> np.ndarray:
    codes = nibbles(b[:, 6:]) + 16 * bits(b[:, 2:6])
    return half(b[:, :2]) * (codes - 16).astype(np.float32)


def decode_q5_1(b: np.ndarray) -> np.ndarray:
    codes = nibbles(b[:, 8:]) + 16 * bits(b[:, 4:8])
    return half(b[:, :2]) * codes.astype(np.float32) + half(b[:, 2:4])


def decode_q8_0(b: np.ndarray) -> np.ndarray:
    return half(b[:, :2]) * b[:, 2:].view(np.int8).astype(np.float32)


def scales_and_minima(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of eight groups each: f32 [blocks, 8, 1]."""
    first, second, third = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    scales = half(b[:, :2]) * scales.astype(np.float32)
    minima = half(b[:, 2:4]) * minima.astype(np.float32)
    return scales[:, :, None], minima[:, :, None]


def decode_q4_k(b: np.ndarray) -> np.ndarray:
    scales, minima = scales_and_minima(b)
    codes = nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return scales * codes.astype(np.float32) - minima


def decode_q5_k(b: np.ndarray) -> np.ndarray:
    scales, minima = scales_and_minima(b)
    codes = nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = bits(b[:, 16:48, None]).transpose(0, 2, 1)  # [blocks, group, value]
    return scales * (codes + 16 * high).astype(np.float32) - minima


def decode_q6_k(b: np.ndarray) -> np.ndarray:
    low = nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    pairs = bits(b[:, 128:192].reshape(-1, 2, 32, 1)).reshape(-1, 2, 32, 4, 2)
    high = (pairs[..., 0] + 2 * pairs[..., 1]).transpose(0, 1, 3, 2)
    codes = (low + 16 * high - 32).reshape(-1, 16, 16).astype(np.float32)
    scales = half(b[:, 208:]) * b[:, 192:208].view(np.int8).astype(np.float32)
    return scales[:, :, None] * codes


# Rounding to blocks.


def quantize(name: str, values: np.ndarray) -> np.ndarray:
    """A matrix whose rows are whole blocks -> its bytes, a row each."""
    blocks = values.astype(np.float32).reshape(-1, FORMATS[name][1])
    return QUANTIZERS[name](blocks).reshape(len(values), -1)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape, np.float32), where=b != 0)


def codes_of(values: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(values), low, high).astype(np.int32)


def extremes(values: np.ndarray) -> np.ndarray:
    """The value of the largest magnitude along the last axis, which is kept."""
    return np.take_along_axis(values, np.abs(values).argmax(-1)[..., None], -1)


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    first, second = np.split(codes & 15, 2, axis=-1)
    return (first | second << 4).astype(np.uint8)


def pack_bits(set_bits: np.ndarray) -> np.ndarray:
    return np.packbits(set_bits.astype(np.uint8), axis=-1, bitorder="little")


def symmetric(values: np.ndarray, n_bits: int) -> np.ndarray:
    largest = 1 << (n_bits - 1)
    scale = half_bytes(extremes(values) / -largest)
    codes = codes_of(divide(values, half(scale)), -largest, largest - 1) + largest
    high = [pack_bits(codes >> 4)] if n_bits == 5 else []
    return np.concatenate([scale, *high, pack_nibbles(codes)], axis=1)


def asymmetric(values: np.ndarray, n_bits: int) -> np.ndarray:
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    scale, minimum = half_bytes((high - low) / ((1 << n_bits) - 1)), half_bytes(low)
    codes = codes_of(divide(values - half(minimum), half(scale)), 0, (1 << n_bits) - 1)
    upper = [pack_bits(codes >> 4)] if n_bits == 5 else []
    return np.concatenate([scale, minimum, *upper, pack_nibbles(codes)], axis=1)


def quantize_q8_0(values: np.ndarray) -> np.ndarray:
    scale = half_bytes(np.abs(values).max(-1, keepdims=True) / 127)
    codes = codes_of(divide(values, half(scale)), -127, 127)
    return np.concatenate([scale, codes.astype(np.int8).view(np.uint8)], axis=1)


def grouped(values: np.ndarray, n_bits: int) -> np.ndarray:
    groups = values.reshape(-1, 8, 32)
    low, high = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
    step = (high - low) / ((1 << n_bits) - 1)
    d, m = (half_bytes(part.max(-1, keepdims=True) / 63) for part in (step, -low))
    scales, minima = (
        codes_of(divide(part, half(unit)), 0, 63) for part, unit in ((step, d), (-low, m))
    )
    packed = np.concatenate(
        [
            scales[:, :4] | scales[:, 4:] >> 4 << 6,
            minima[:, :4] | minima[:, 4:] >> 4 << 6,
            (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4,
        ],
        axis=1,
    ).astype(np.uint8)
    head = np.concatenate([d, m, packed], axis=1)
    scale, minimum = scales_and_minima(head)
    codes = codes_of(divide(groups + minimum, scale), 0, (1 << n_bits) - 1)
    low_bits = pack_nibbles(codes.reshape(-1, 4, 64)).reshape(-1, 128)
    upper = [pack_bits(codes.transpose(0, 2, 1) >> 4)[..., 0]] if n_bits == 5 else []
    return np.concatenate([head, *upper, low_bits], axis=1)


def quantize_q6_k(values: np.ndarray) -> np.ndarray:
    groups = values.reshape(-1, 16, 16)
    steps = extremes(groups)[..., 0] / -32
    d = half_bytes(extremes(steps) / -128)
    scales = codes_of(divide(steps, half(d)), -128, 127)
    unit = half(d) * scales.astype(np.float32)
    codes = (codes_of(divide(groups, unit[..., None]), -32, 31) + 32).reshape(-1, 2, 4, 32)
    low = pack_nibbles(codes.reshape(-1, 2, 128)).reshape(-1, 128)
    shifts = np.array([0, 2, 4, 6])[:, None]
    high = (codes >> 4 << shifts).sum(2).astype(np.uint8).reshape(-1, 64)
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), d], axis=1)


DECODERS = {
    "Q4_0": decode_q4_0,
    "Q4_1": decode_q4_1,
    "Q5_0": decode_q5_0,
    "Q5_1": decode_q5_1,
    "Q8_0": decode_q8_0,
    "Q4_K": decode_q4_k,
    "Q5_K": decode_q5_k,
    "Q6_K": decode_q6_k,
}
QUANTIZERS = {
    "Q4_0": lambda values: symmetric(values, 4),
    "Q4_1": lambda values: asymmetric(values, 4),
    "Q5_0": lambda values: symmetric(values, 5),
    "Q5_1": lambda values: asymmetric(values, 5),
    "Q8_0": quantize_q8_0,
    "Q4_K": lambda values: grouped(values, 4),
    "Q5_K": lambda values: grouped(values, 5),
    "Q6_K": quantize_q6_k,
}


# Stored values.


def random_blocks(name: str, n_blocks: int, seed: int) -> np.ndarray:
    """Any bytes: codes, scales and minima of every kind, infinite ones and NaN among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, n_blocks * FORMATS[name][2], dtype=np.uint8)


def gguf_values(name: str, raw: np.ndarray) -> np.ndarray:
    """What the `gguf` package makes of blocks."""
    from gguf import GGMLQuantizationType, quants

    with np.errstate(all="ignore"):
        blocks = raw.reshape(1, -1)
        return quants.dequantize(blocks, GGMLQuantizationType[name]).ravel()


def main() -> None:
    stored = {}
    for name, (number, n_values, _) in FORMATS.items():
        raw = random_blocks(name, 1024 // n_values, number)
        stored[f"{name}_blocks"], stored[f"{name}_values"] = raw, gguf_values(name, raw)
    np.savez_compressed(GOLDEN, **stored)


if __name__ == "__main__":
    main()
