"""Writes small safetensors and GGUF files, valid or not: nothing that is given is checked."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

UINT8, INT32, UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 5, 4, 6, 7, 8, 9, 10
LAYOUTS = {UINT8: "<B", INT32: "<i", UINT32: "<I", FLOAT32: "<f", BOOL: "<B", UINT64: "<Q"}

#: (name, dimensions as the file orders them, type, offset)
GGUFTensor = tuple[str | bytes, list[int], int, int]


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf_string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(kind: int, value: Any) -> bytes:
    """A value without its type; for an array ``value`` is (type of elements, elements)."""
    if kind == STRING:
        return gguf_string(value)
    if kind == ARRAY:
        element, values = value
        head = struct.pack("<IQ", element, len(values))
        return head + b"".join(gguf_value(element, one) for one in values)
    return struct.pack(LAYOUTS[kind], value)


def gguf(
    entries: list[tuple[str | bytes, int, Any]] | None = None,
    tensors: list[GGUFTensor] | None = None,
    data: bytes = b"",
    *,
    version: int = 3,
    alignment: int = 32,
    n_entries: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    """A file; the counts are those of the lists unless they are given."""
    entries, tensors = entries or [], tensors or []
    raw = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(entries) if n_entries is None else n_entries,
    )
    for key, kind, value in entries:
        raw += gguf_string(key) + struct.pack("<I", kind) + gguf_value(kind, value)
    for name, dimensions, kind, offset in tensors:
        raw += gguf_string(name) + struct.pack("<I", len(dimensions))
        raw += struct.pack(f"<{len(dimensions)}Q", *dimensions)
        raw += struct.pack("<IQ", kind, offset)
    if data:
        raw += b"\0" * (-len(raw) % alignment)
    return raw + data


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A file of arrays, written one by one."""
    kinds = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}
    kinds |= {"uint8": "U8", "int8": "I8", "bool": "BOOL"}
    header, offset = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": kinds[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    with path.open("wb") as file:
        file.write(safetensors(header))
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)
