"""The first inputs of the fuzz targets: valid ones, which the fuzzer then changes.

python tests/fuzz/seeds.py FOLDER     # writes FOLDER/<target>/<name>
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path


def length(value: int) -> bytes:
    """A number as ``fuzz_length`` reads it."""
    return struct.pack("b", value) if -16 < value < 128 else b"\xf0" + struct.pack("<q", value)


def answer(status: int, position: int, limit: int, way: int, text: str) -> bytes:
    return struct.pack("BBbB", status, position, limit, way) + text.encode()


HEAD = "HTTP/1.1 {}\r\nContent-Type: text/plain\r\n"
ANSWERS = {
    "whole": answer(0, 0, -1, 9, HEAD.format("200 OK") + "\r\nthe whole file"),
    "anew": answer(0, 20, 40, 3, HEAD.format("200 OK") + "\r\nthe whole file"),
    "part": answer(
        1, 20, 40, 7, HEAD.format("206 Part") + "Content-Range: bytes 20-25/26\r\n\r\nthe end"
    ),
    "other_part": answer(
        1, 20, 40, 7, HEAD.format("206 Part") + "content-range:bytes 3-5/26\r\n\r\nthe end"
    ),
    "too_long": answer(0, 0, 5, 9, HEAD.format("200 OK") + "\r\nthe whole file"),
    "error": answer(3, 8, 40, 9, HEAD.format("503 No") + "Retry-After: 3\r\n\r\nlater"),
    "memory": answer(0, 0, -1, 64, HEAD.format("200 OK") + '\r\n{"sha": "abc"}'),
}


def tensor(dtype: int, offset: int, shape: list[int], steps: bytes, strides: list[int] | None):
    return b"".join(
        [
            bytes([strides is not None, dtype]),
            length(offset),
            bytes([len(shape) + 1]),
            *map(length, [*shape, *(strides or [])]),
            steps.ljust(32, b"\0"),
        ]
    )


SELECT, SLICE, RESHAPE = 0, 1, 2
TENSORS = {
    "floats": tensor(0, 4, [2, 3], bytes([SELECT, 0, 1, SLICE, 0, 0, 2, 1]), None) + bytes(28),
    "odd": tensor(1, 1, [4], bytes([SLICE, 0, 3, 4, 255]), None) + bytes(9),
    "strided": tensor(4, 8, [3, 2], bytes([RESHAPE, 0, 2, 6]), [1, 3]) + bytes(32),
    "backwards": tensor(7, 5, [6], bytes([SLICE, 0, 0, 3, 2]), [-1]) + bytes(6),
    "q8_0": tensor(8, 2, [2, 32], bytes([SELECT, 0, 1]), None) + bytes(70),
    "q6_k": tensor(15, 0, [256], b"", None) + bytes(210),
    "empty": tensor(3, 0, [0, 5], b"", None),
}

# The formats by their number in csrc/tensor/dtype.h, with the bytes of a block.
FORMATS = {8: 34, 9: 18, 10: 20, 11: 22, 12: 24, 13: 144, 14: 176, 15: 210}
BLOCKS = {
    **{f"decode_{n}": bytes([2 * n]) + bytes(i * 7 % 251 for i in range(2 * size))
       for n, size in FORMATS.items()},
    **{f"encode_{n}": bytes([2 * n + 1]) + struct.pack("<256f", *(i / 7 - 9 for i in range(256)))
       for n in FORMATS},
}  # fmt: skip


def dlpack(way: int, view: int, shape: list[int], strides: list[int], offset: int) -> bytes:
    pairs = [length(n) for pair in zip(shape, strides, strict=True) for n in pair]
    return bytes([way, view, len(shape)]) + b"".join(pairs) + length(offset)


DLPACK = {
    "floats": dlpack(0, 0, [2, 3], [3, 1], 0) + bytes(24),
    "contiguous": dlpack(1, 16, [2, 3], [0, 0], 4) + bytes(28),
    "backwards": dlpack(1, 128, [6], [-1], 5) + bytes(6),
    "broadcast": dlpack(8, 64, [5, 2], [0, 1], 8) + bytes(24),
    "empty": dlpack(0, 192, [0, 4], [4, 1], 0),
}

TARGETS = {"answer": ANSWERS, "tensor": TENSORS, "blocks": BLOCKS, "dlpack": DLPACK}


def main(folder: Path) -> None:
    for target, seeds in TARGETS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / target / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
