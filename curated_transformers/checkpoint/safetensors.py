"""Safetensors files: eight bytes of length, a JSON header, the data.

The header is not trusted: a file is valid only when its tensors cover the data exactly, without
hole or overlap, which also keeps other formats from hiding in it
(https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
from os import PathLike
from typing import Any, NoReturn

from .tensor_file import TensorFile, TensorInfo

MAX_HEADER = 100_000_000

#: dtype -> bits per value
DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class SafeTensorsFile(TensorFile):
    """The tensors of a safetensors file by name, and the strings in its ``__metadata__``."""

    format = "safetensors"
    supported = {  # noqa: RUF012 (never changed)
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "I64": "int64",
        "I32": "int32",
        "I8": "int8",
        "U8": "uint8",
        "BOOL": "bool",
    }

    def __init__(self, path: str | PathLike[str], *, source: str | None = None) -> None:
        super().__init__(path, source=source)
        header, start = self._read_header()
        self.metadata = self._read_metadata(header.pop("__metadata__", {}))
        for name, entry in header.items():
            self.infos[name] = self._read_info(name, entry, start)
        self._check_ranges(start)

    def _read_header(self) -> tuple[dict[str, Any], int]:
        with memoryview(self._file) as raw:
            if len(raw) < 8:
                raise self.error(f"it has {len(raw)} bytes, less than the length of a header")
            length = int.from_bytes(raw[:8], "little")
            if length > MAX_HEADER or length > len(raw) - 8:
                raise self.error(f"a header of {length} bytes does not fit a file of {len(raw)}")
            text = bytes(raw[8 : 8 + length])
        if not text.startswith(b"{"):
            raise self.error("the header does not begin with `{`")
        try:
            header = json.loads(
                text.decode("utf-8"),
                object_pairs_hook=self._unique,
                parse_constant=_refuse_constant,
            )
        except _RepeatedName as error:
            raise self.error(f"the header holds `{error}` twice") from None
        except (ValueError, RecursionError) as error:
            raise self.error(f"the header is not valid JSON ({error})") from None
        return header, 8 + length

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise _RepeatedName(name)
            result[name] = value
        return result

    def _read_metadata(self, value: Any) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise self.error("`__metadata__` is not an object of strings")
        return value

    def _read_info(self, name: str, entry: Any, start: int) -> TensorInfo:
        if not isinstance(entry, dict):
            raise self.error(f"the entry of tensor `{name}` is not an object")
        dtype: Any = entry.get("dtype")
        shape: Any = entry.get("shape")
        offsets: Any = entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            raise self.error(f"tensor `{name}` has the unknown dtype {dtype!r}")
        if not _are_sizes(shape):
            raise self.error(f"the shape of tensor `{name}` is not a list of non-negative integers")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self.error(f"data_offsets of tensor `{name}` are not two integers in order")
        begin, end = offsets
        bits = math.prod(shape) * DTYPE_BITS[dtype]
        if bits != 8 * (end - begin):
            raise self.error(
                f"tensor `{name}`, {dtype} of shape {shape}, has {end - begin} bytes "
                f"instead of {bits / 8:g}"
            )
        return TensorInfo(dtype, tuple(shape), start + begin, start + end)

    def _check_ranges(self, start: int) -> None:
        position = start
        for name, info in self.by_offset():
            if info.begin != position:
                problem = (
                    "overlaps another one" if info.begin < position else "leaves a hole before it"
                )
                raise self.error(f"tensor `{name}` {problem}")
            position = info.end
        if position != self._file.size:
            raise self.error(
                f"its tensors end at byte {position}, the file has {self._file.size} bytes"
            )


class _RepeatedName(Exception):
    """A JSON object names something twice."""


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)
