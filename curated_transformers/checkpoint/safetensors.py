"""Safetensors files. The header is JSON; everything in it is checked before a tensor is made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from .._core import MappedFile, Tensor

MAX_HEADER = 100_000_000

# name in the file -> (our dtype or None where it is not supported, bits per value)
DTYPES: dict[str, tuple[str | None, int]] = {
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I8": ("int8", 8),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
    "F64": (None, 64),
    "I16": (None, 16),
    "U16": (None, 16),
    "U32": (None, 32),
    "U64": (None, 64),
    "F8_E5M2": (None, 8),
    "F8_E4M3": (None, 8),
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: offsets are relative to the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafeTensorsFile(Mapping[str, Tensor]):
    """The tensors of a file by name; each is a view of the mapped file.

    Raises ``ValueError``, naming the file and what is wrong, for a file that breaks the format's rules.
    A tensor of an unsupported type is refused when it is asked for, so that others can be used.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = str(path)
        self._file = MappedFile(path)
        self.infos = self._read_header()

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        dtype = DTYPES[info.dtype][0]
        if dtype is None:
            raise ValueError(f"{self.path}: tensor `{name}` has the unsupported dtype {info.dtype}")
        return self._file.tensor(dtype, info.shape, info.begin)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def _fail(self, what: str) -> ValueError:
        return ValueError(f"{self.path}: not a valid safetensors file: {what}")

    def _read_header(self) -> dict[str, TensorInfo]:
        with memoryview(self._file) as raw:
            size = len(raw)
            if size < 8:
                raise self._fail(f"it has {size} bytes, less than the 8 of the header's length")
            length = int.from_bytes(raw[:8], "little")
            if length > min(size - 8, MAX_HEADER):
                raise self._fail(f"a header of {length} bytes does not fit a file of {size}")
            text = bytes(raw[8 : 8 + length])
        if not text.startswith(b"{"):
            raise self._fail("the header does not begin with `{`")
        try:
            header = json.loads(text.decode("utf-8"), object_pairs_hook=self._unique)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise self._fail(f"the header is not valid JSON ({error})") from None
        header.pop("__metadata__", None)
        infos = {name: self._read_info(name, entry, 8 + length) for name, entry in header.items()}
        self._check_ranges(infos, 8 + length, size)
        return infos

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise self._fail("a name stands twice in the header")
        return result

    def _read_info(self, name: str, entry: Any, start: int) -> TensorInfo:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._fail(f"the entry of `{name}` must have dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in DTYPES:
            raise self._fail(f"tensor `{name}` has the unknown dtype {dtype!r}")
        numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
        if any(type(number) is not int or number < 0 for number in numbers) or len(offsets) != 2:
            raise self._fail(f"shape and offsets of `{name}` must be non-negative integers")
        begin, end = offsets
        if math.prod(shape) * DTYPES[dtype][1] // 8 != end - begin:
            raise self._fail(f"tensor `{name}` of shape {shape} does not have {end - begin} bytes")
        return TensorInfo(dtype, tuple(shape), start + begin, start + end)

    def _check_ranges(self, infos: dict[str, TensorInfo], start: int, size: int) -> None:
        position = start
        for name, info in sorted(infos.items(), key=lambda item: (item[1].begin, item[1].end)):
            if info.begin != position:
                raise self._fail(f"tensor `{name}` overlaps another one or leaves a hole before it")
            position = info.end
        if position != size:
            raise self._fail(f"its tensors end at byte {position}, the file at {size}")
