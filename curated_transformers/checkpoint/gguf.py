"""GGUF files, versions 2 and 3: key-value metadata, then tensors, many of them quantized.

The whole structure is walked and checked once when a file is opened: no count, length or offset is
believed before it was compared with the bytes that remain. Values are decoded when they are read,
as the two long lists of a vocabulary take more time than everything else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

from .._core import MappedFile
from .tensor_file import TensorFile, TensorInfo

MAGIC = b"GGUF"
MAX_DIMS = 4
#: Of arrays in arrays; our own limit.
MAX_DEPTH = 8
#: `general.alignment` where a file does not say.
ALIGNMENT = 32

#: Numbers of the value types; what is not a string or an array is a scalar of this layout.
_STRING, _ARRAY = 8, 9
_SCALARS = {
    number: struct.Struct(f"<{code}") for number, code in enumerate("BbHhIif?__Qqd") if code != "_"
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]
#: The smallest bytes of a metadata entry (length of the key, type, a byte), and of a tensor's info
#: (length of the name, number of dimensions, type, offset).
_MIN_ENTRY, _MIN_INFO = 8 + 4 + 1, 8 + 4 + 4 + 8

#: Number of a tensor type -> its name, values and bytes per block (ggml.h, ggml-common.h).
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}


def is_gguf(path: str | PathLike[str]) -> bool:
    """Whether the path of a model is that of a GGUF file, by its first bytes, as caches give files
    other names. What only the name says to be one is meant to be one; a folder never is."""
    path = Path(path)
    if path.suffix == ".gguf":
        return not path.is_dir()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class GGUFFile(TensorFile):
    """The tensors of a GGUF file by name, and its ``metadata``.

    Matrices have the shape ``(rows, columns)``: the file's own order of dimensions is reversed.
    """

    format = "GGUF"
    supported = {  # noqa: RUF012 (never changed)
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "Q8_0": "q8_0",
        "Q4_0": "q4_0",
        "Q4_1": "q4_1",
        "Q5_0": "q5_0",
        "Q5_1": "q5_1",
        "Q4_K": "q4_k",
        "Q5_K": "q5_k",
        "Q6_K": "q6_k",
        "I64": "int64",
        "I32": "int32",
        "I8": "int8",
    }

    metadata: Metadata

    def __init__(self, path: str | PathLike[str], *, source: str | None = None) -> None:
        super().__init__(path, source=source)
        with memoryview(self._file) as raw:
            reader = _Reader(self, raw)
            n_tensors, n_entries = self._read_counts(reader)
            self.metadata = self._read_metadata(reader, n_entries)
            alignment = self._alignment()
            infos = [self._read_info(reader) for _ in range(n_tensors)]
            start = -(-reader.position // alignment) * alignment
        for name, info in infos:
            if name in self.infos:
                raise self.error(f"it holds tensor `{name}` twice")
            if info.begin % alignment:
                raise self.error(f"tensor `{name}` does not lie at a multiple of {alignment} bytes")
            begin, end = start + info.begin, start + info.end
            self.infos[name] = TensorInfo(info.dtype, info.shape, begin, end)
        self._check_ranges()

    def _read_counts(self, reader: _Reader) -> tuple[int, int]:
        if reader.take(4) != MAGIC:
            raise self.error("it does not begin with `GGUF`")
        version = reader.u32()
        if version not in (2, 3):
            big_endian = "; it is big-endian" if version in (2 << 24, 3 << 24) else ""
            raise self.error(f"version {version} is not supported, only 2 and 3{big_endian}")
        n_tensors = reader.u64()
        n_entries = reader.u64()
        needed = n_tensors * _MIN_INFO + n_entries * _MIN_ENTRY
        if needed > reader.remaining:
            raise self.error(f"{n_tensors} tensors and {n_entries} keys do not fit the file")
        return n_tensors, n_entries

    def _read_metadata(self, reader: _Reader, n_entries: int) -> Metadata:
        places: dict[str, tuple[int, int]] = {}
        for _ in range(n_entries):
            key = reader.string("a key")
            if key in places:
                raise self.error(f"it holds the key `{key}` twice")
            kind = reader.u32()
            places[key] = (kind, reader.position)
            reader.skip_value(kind, f"key `{key}`")
        return Metadata(self, self._file, places)

    def _alignment(self) -> int:
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 8 or alignment & (alignment - 1):
            raise self.error(f"its alignment {alignment!r} is not a power of two of at least 8")
        return alignment

    def _read_info(self, reader: _Reader) -> tuple[str, TensorInfo]:
        """A tensor's name and info, with offsets from the start of the data."""
        name = reader.string("the name of a tensor")
        n_dims = reader.u32()
        if not 1 <= n_dims <= MAX_DIMS:
            raise self.error(f"tensor `{name}` has {n_dims} dimensions, not 1 to {MAX_DIMS}")
        shape = tuple(reader.u64() for _ in range(n_dims))[::-1]
        number, offset = reader.u32(), reader.u64()
        if number not in TYPES:
            raise self.error(f"tensor `{name}` has the unknown type {number}")
        dtype, block, block_bytes = TYPES[number]
        if shape[-1] % block:
            raise self.error(f"rows of tensor `{name}` are not whole blocks of {block} values")
        end = offset + math.prod(shape) // block * block_bytes
        return name, TensorInfo(dtype, shape, offset, end)

    def _check_ranges(self) -> None:
        position = 0
        for name, info in self.by_offset():
            if info.end > self._file.size:
                raise self.error(
                    f"tensor `{name}` of shape {list(info.shape)} ends at byte {info.end}, "
                    f"the file has {self._file.size} bytes"
                )
            if info.begin < position:
                raise self.error(f"tensor `{name}` overlaps another one")
            position = info.end


class Metadata(Mapping[str, Any]):
    """The keys and values of a GGUF file: numbers, booleans, strings, and lists of them.

    Raises ``ValueError`` when a string that is asked for is not UTF-8. Lists are decoded each time
    they are asked for: a model keeps its file, and those of a vocabulary would take much memory.
    """

    def __init__(
        self, owner: TensorFile, file: MappedFile, places: dict[str, tuple[int, int]]
    ) -> None:
        self._owner = owner
        self._file = file
        self._places = places
        self._decoded: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._decoded:
            kind, position = self._places[key]
            with memoryview(self._file) as raw:
                reader = _Reader(self._owner, raw, position)
                value = reader.value(kind, f"key `{key}`")
            if isinstance(value, list):
                return value
            self._decoded[key] = value
        return self._decoded[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places


class _Reader:
    """Reads the file's values in order, never past its end."""

    def __init__(self, owner: TensorFile, raw: memoryview, position: int = 0) -> None:
        self.owner = owner
        self.raw = raw
        self.position = position

    @property
    def remaining(self) -> int:
        return len(self.raw) - self.position

    def skip(self, n_bytes: int, what: str) -> None:
        if n_bytes > self.remaining:
            raise self.owner.error(
                f"{what} needs {n_bytes} bytes at byte {self.position}, {self.remaining} remain"
            )
        self.position += n_bytes

    def take(self, n_bytes: int, what: str = "the header") -> bytes:
        self.skip(n_bytes, what)
        return bytes(self.raw[self.position - n_bytes : self.position])

    def u32(self) -> int:
        number: int = _U32.unpack(self.take(4))[0]
        return number

    def u64(self) -> int:
        number: int = _U64.unpack(self.take(8))[0]
        return number

    def string(self, what: str) -> str:
        text = self.take(self.u64(), what)
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.owner.error(f"{what} is not UTF-8: {error}") from None

    def array_header(self, what: str) -> tuple[int, int]:
        """An array's type of elements and their number, which fit the file."""
        kind, count = self.u32(), self.u64()
        if count * self._smallest(kind, what) > self.remaining:
            raise self.owner.error(f"the {count} elements of {what} do not fit the file")
        return kind, count

    def _smallest(self, kind: int, what: str) -> int:
        if kind in _SCALARS:
            return _SCALARS[kind].size
        if kind in (_STRING, _ARRAY):
            return 8 if kind == _STRING else 12
        raise self.owner.error(f"{what} has the unknown type {kind}")

    def skip_value(self, kind: int, what: str, depth: int = 0) -> None:
        """Checks a value, apart from the encoding of strings, and moves behind it."""
        if kind in _SCALARS:
            self.skip(_SCALARS[kind].size, what)
        elif kind == _STRING:
            self.skip(self.u64(), what)
        elif kind != _ARRAY:
            raise self.owner.error(f"{what} has the unknown type {kind}")
        else:
            if depth == MAX_DEPTH:
                raise self.owner.error(f"{what} has arrays nested deeper than {MAX_DEPTH}")
            element, count = self.array_header(what)
            if element in _SCALARS:
                self.skip(count * _SCALARS[element].size, what)
            elif element == _STRING:
                self._walk_strings(count, what)
            else:
                for _ in range(count):
                    self.skip_value(element, what, depth + 1)

    def _walk_strings(self, count: int, what: str) -> list[int]:
        """Moves behind strings and gives the positions of their lengths, and of the end."""
        # Vocabularies have a hundred thousand of them, hence no calls to our own functions.
        raw, position, end = self.raw, self.position, len(self.raw)
        unpack = _U64.unpack_from
        positions = []
        try:
            for _ in range(count):
                positions.append(position)
                position += 8 + unpack(raw, position)[0]
                if position > end:
                    break
        except struct.error:
            position = end + 1
        if position > end:
            raise self.owner.error(f"element {len(positions) - 1} of {what} ends behind the file")
        self.position = position
        return [*positions, position]

    def value(self, kind: int, what: str) -> Any:
        """Decodes a value that `skip_value` has accepted."""
        if kind == _STRING:
            return self.string(what)
        if kind in _SCALARS:
            return _SCALARS[kind].unpack(self.take(_SCALARS[kind].size))[0]
        element, count = self.array_header(what)
        if element == _STRING:
            return self._strings(count, what)
        if element == _ARRAY:
            return [self.value(element, what) for _ in range(count)]
        scalar = _SCALARS[element]
        raw = self.take(count * scalar.size)
        return list(struct.unpack(f"<{count}{scalar.format[1:]}", raw))

    def _strings(self, count: int, what: str) -> list[str]:
        positions = self._walk_strings(count, what)
        raw = self.raw
        try:
            return [str(raw[begin + 8 : end], "utf-8") for begin, end in pairwise(positions)]
        except UnicodeDecodeError as error:
            raise self.owner.error(f"an element of {what} is not UTF-8: {error}") from None
