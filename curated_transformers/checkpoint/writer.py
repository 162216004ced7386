"""Writing checkpoints: safetensors, in several files where one would be too large.

Tensors are asked for one after the other, so that no second copy of a model comes into memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .._core import Tensor
from ..repository.atomic import AtomicFiles

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: The names of all files that a checkpoint can have.
FILES = r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"

#: Our dtypes -> the file's, and bytes of a value.
DTYPES = {
    "float32": ("F32", 4),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "int8": ("I8", 1),
    "uint8": ("U8", 1),
}

# What transformers wants to know before it loads a file.
_METADATA = {"format": "pt"}
_CHUNK = 1 << 20  # values that are written at once
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGT", 1)}


@dataclass(frozen=True)
class Planned:
    """A tensor that is to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * DTYPES[self.dtype][1]


def byte_count(size: int | str) -> int:
    """``"5GB"`` and the like in bytes: units of 1000, or with an i of 1024. ``ValueError`` for
    anything that is not a positive size."""
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", size.upper())
        if match and match[2] in _UNITS:
            size = int(float(match[1]) * _UNITS[match[2]])
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"a size must be a number of bytes or like '5GB', was: {size!r}")
    return size


def write_checkpoint(
    files: AtomicFiles,
    tensors: Sequence[Planned],
    value_of: Callable[[str], Tensor],
    max_shard_size: int,
) -> None:
    """Writes the tensors, in their order, to one file or to shards and their index.

    A tensor that is larger than ``max_shard_size`` bytes has a shard of its own.
    """
    shards = list(_shards(tensors, max_shard_size))
    if len(shards) == 1:
        _write_file(files, SINGLE, shards[0], value_of)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(files, name, shard, value_of)
        weight_map |= dict.fromkeys((tensor.name for tensor in shard), name)
    total = sum(tensor.n_bytes for tensor in tensors)
    write_json(files, INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(files: AtomicFiles, name: str, value: Mapping[str, Any]) -> None:
    """A JSON file, for people to read as well."""
    file = files.open(name)
    file.write((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
    files.finish(file)


def _shards(tensors: Iterable[Planned], max_size: int) -> Iterator[list[Planned]]:
    shard: list[Planned] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.n_bytes > max_size:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.n_bytes
    yield shard


def _write_file(
    files: AtomicFiles, name: str, tensors: Sequence[Planned], value_of: Callable[[str], Tensor]
) -> None:
    file = files.open(name)
    file.write(_header(tensors))
    for planned in tensors:
        _write_tensor(file, planned, value_of(planned.name))
    files.finish(file)


def _header(tensors: Sequence[Planned]) -> bytes:
    header: dict[str, Any] = {"__metadata__": _METADATA}
    position = 0
    for tensor in tensors:
        end = position + tensor.n_bytes
        header[tensor.name] = {
            "dtype": DTYPES[tensor.dtype][0],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(file: IO[bytes], planned: Planned, tensor: Tensor) -> None:
    if (tensor.shape, tensor.dtype) != (planned.shape, planned.dtype):
        raise RuntimeError(f"`{planned.name}` has changed while it was saved")
    flat = tensor.contiguous().reshape(-1)
    for begin in range(0, flat.size, _CHUNK):
        values = flat[begin : begin + _CHUNK].numpy()
        if planned.dtype == "bfloat16":
            values = _upper_halves(values)
        file.write(values.astype(values.dtype.newbyteorder("<"), copy=False).data)


def _upper_halves(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    # NumPy has no bfloat16, which is the upper half of a float32.
    return (values.view(np.uint32) >> 16).astype(np.uint16)
