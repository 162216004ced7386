"""GGUF files: metadata and tensors of llama.cpp's format, versions 2 and 3.

Every count and length is checked against the bytes that remain before anything is made of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from .._core import DTYPE_BLOCKS, MappedFile, Tensor

MAGIC = b"GGUF"
MAX_DEPTH = 4  # of arrays in arrays
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# type number in the file -> our dtype
TYPES = {0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 8: "q8_0", 30: "bfloat16"}
TYPE_NAMES = {6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's shape, outermost dimension first, type number and offset from the file's start."""

    shape: tuple[int, ...]
    type: int
    offset: int


class _Reader:
    """Reads values in order and never past the end."""

    def __init__(self, raw: memoryview, path: str) -> None:
        self.raw = raw
        self.path = path
        self.position = 0

    def fail(self, what: str) -> ValueError:
        return ValueError(f"{self.path}: not a valid GGUF file: {what} (at byte {self.position})")

    def take(self, n: int) -> memoryview:
        if n > len(self.raw) - self.position:
            raise self.fail(f"it ends within a value of {n} bytes")
        self.position += n
        return self.raw[self.position - n : self.position]

    def scalar(self, layout: str) -> Any:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0]

    def count(self, bytes_each: int) -> int:
        count: int = self.scalar("Q")
        if count * bytes_each > len(self.raw) - self.position:
            raise self.fail(f"{count} entries do not fit the file")
        return count

    def string(self) -> str:
        try:
            return str(self.take(self.count(1)), "utf-8")
        except UnicodeDecodeError:
            raise self.fail("a string is not UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string()
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind != ARRAY or depth >= MAX_DEPTH:
            raise self.fail(f"unknown value type {kind}, or arrays nested too deep")
        element = self.scalar("I")
        if element in SCALARS:
            layout = SCALARS[element]
            count = self.count(struct.calcsize("<" + layout))
            return list(struct.unpack(f"<{count}{layout}", self.take(count * struct.calcsize(layout))))
        count = self.count(8)
        if element == STRING:
            return self._strings(count)
        return [self.value(element, depth + 1) for _ in range(count)]

    def _strings(self, count: int) -> list[str]:
        # Vocabularies have a hundred thousand of these, so the loop avoids a call for each.
        raw, position, end = self.raw, self.position, len(self.raw)
        unpack = struct.Struct("<Q").unpack_from
        strings = []
        try:
            for _ in range(count):
                (length,) = unpack(raw, position)
                position += 8
                if length > end - position:
                    raise self.fail("a string does not fit the file")
                strings.append(str(raw[position : position + length], "utf-8"))
                position += length
        except (UnicodeDecodeError, struct.error):
            raise self.fail("an array of strings is cut short or not UTF-8") from None
        self.position = position
        return strings


class GGUFFile(Mapping[str, Tensor]):
    """Metadata, and the tensors by name as views of the mapped file.

    Raises ``ValueError`` for a file that breaks the format's rules. A tensor of an unsupported type is
    refused when it is asked for.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = str(path)
        self._file = MappedFile(path)
        self.metadata: dict[str, Any] = {}
        self.infos: dict[str, TensorInfo] = {}
        with memoryview(self._file) as raw:
            reader = _Reader(raw, self.path)
            try:
                self._read(reader)
            finally:
                reader.raw.release()

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        if info.type not in TYPES:
            known = TYPE_NAMES.get(info.type, f"number {info.type}")
            raise ValueError(f"{self.path}: tensor `{name}` has the unsupported type {known}")
        return self._file.tensor(TYPES[info.type], info.shape, info.offset)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def _read(self, reader: _Reader) -> None:
        if bytes(reader.take(4)) != MAGIC:
            raise reader.fail("it does not begin with GGUF")
        version = reader.scalar("I")
        if version not in (2, 3):
            raise reader.fail(f"version {version} is not supported, only 2 and 3")
        n_tensors, n_keys = reader.count(1), reader.count(1)
        for _ in range(n_keys):
            key = reader.string()
            if key in self.metadata:
                raise reader.fail(f"key `{key}` stands twice")
            self.metadata[key] = reader.value(reader.scalar("I"))
        raw_infos = [self._read_info(reader) for _ in range(n_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
            raise reader.fail(f"alignment {alignment!r} is not a power of two of at least 8")
        start = -(-reader.position // alignment) * alignment
        for name, info in raw_infos:
            if name in self.infos:
                raise reader.fail(f"tensor `{name}` stands twice")
            if info.offset % alignment:
                raise reader.fail(f"tensor `{name}` is not aligned")
            self.infos[name] = TensorInfo(info.shape, info.type, start + info.offset)
        self._check_ranges(reader)

    def _read_info(self, reader: _Reader) -> tuple[str, TensorInfo]:
        name = reader.string()
        n_dims = reader.scalar("I")
        if not 1 <= n_dims <= 4:
            raise reader.fail(f"tensor `{name}` has {n_dims} dimensions")
        shape = tuple(reader.scalar("Q") for _ in range(n_dims))[::-1]
        return name, TensorInfo(shape, reader.scalar("I"), reader.scalar("Q"))

    def _check_ranges(self, reader: _Reader) -> None:
        position = 0
        for name, info in sorted(self.infos.items(), key=lambda item: item[1].offset):
            if info.offset < position:
                raise reader.fail(f"tensor `{name}` overlaps another one")
            position = info.offset
            if info.type in TYPES:
                values, size = DTYPE_BLOCKS[TYPES[info.type]]
                if info.shape[-1] % values:
                    raise reader.fail(f"rows of `{name}` are not whole blocks")
                position += math.prod(info.shape) // values * size
            if position > len(reader.raw):
                raise reader.fail(f"tensor `{name}` lies outside the file")
