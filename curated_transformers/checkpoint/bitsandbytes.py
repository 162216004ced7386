"""Matrices as bitsandbytes' layers save them: codes, and beside them keys with their scales.

A layer ``L`` in 8 bits has ``L.weight`` (int8) and ``L.SCB``, the largest magnitude of each row;
one in 4 bits has ``L.weight`` (two codes in a byte), ``L.weight.absmax``, ``L.weight.quant_map``
and a JSON text, ``L.weight.quant_state.bitsandbytes__nf4`` or ``__fp4``. Here they are one tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import Tensor, scaled_tensor
from .tensor_file import MappedTensors, forget_pages

FORMATS_4BIT = ("nf4", "fp4")
_STATE = "quant_state.bitsandbytes__"
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_NESTED_BLOCK = 256
_LONGEST_STATE = 1 << 16  # bytes of JSON; real ones have 200
_LARGEST = float(np.finfo(np.float32).max)
_DTYPES = ("float32", "float16", "bfloat16")
_SIDE_8BIT = re.compile(r"(?P<layer>.*)\.(?P<part>SCB|weight_format)")
_SIDE_4BIT = re.compile(
    r"(?P<weight>.*\.weight)\.(?P<part>absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\.\w+)"
)


def side_parts(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Name of a quantized matrix -> part -> its key, for all that ``names`` tell of."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _SIDE_8BIT.fullmatch(name):
            found.setdefault(f"{match['layer']}.weight", {})[match["part"]] = name
        elif match := _SIDE_4BIT.fullmatch(name):
            found.setdefault(match["weight"], {})[match["part"]] = name
    return found


def format_of(parts: Mapping[str, str]) -> str:
    """The core's name of a format, by the keys beside a matrix. Raises ``ValueError`` where they
    leave it open."""
    if "SCB" in parts or "weight_format" in parts:
        return "llm_int8"
    for name in FORMATS_4BIT:
        if _STATE + name in parts:
            return name
    key = min(parts.values())
    raise ValueError(f"`{key}` stands there without a `{_STATE}nf4` or `{_STATE}fp4` beside it")


def with_scales(checkpoint: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The checkpoint, or, where some of its matrices are quantized, one in which those are tensors
    with scales and the keys beside them are not there."""
    parts = side_parts(checkpoint)
    return BitsAndBytesCheckpoint(checkpoint, parts) if parts else checkpoint


class BitsAndBytesCheckpoint(MappedTensors):
    """A checkpoint with quantized matrices, each made of its keys when it is asked for.

    Raises ``ValueError`` that names the key which is missing or does not fit.
    """

    def __init__(
        self, checkpoint: Mapping[str, Tensor], parts: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._checkpoint = checkpoint
        self._parts = parts
        for weight, own in parts.items():
            if weight not in checkpoint:
                key = next(iter(own.values()))
                raise ValueError(f"the checkpoint holds `{key}`, but no `{weight}`")
        sides = {key for own in parts.values() for key in own.values()}
        self._names = dict.fromkeys(name for name in checkpoint if name not in sides)

    @property
    def formats(self) -> set[str]:
        """Those of its matrices."""
        return {format_of(parts) for parts in self._parts.values()}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        parts = self._parts.get(name)
        if parts is None:
            return self._checkpoint[name]
        format = format_of(parts)
        if format == "llm_int8":
            return self._int8(name, parts)
        return self._four_bit(name, parts, format)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def forget_pages(self) -> None:
        forget_pages(self._checkpoint)

    def _part(self, weight: str, parts: Mapping[str, str], part: str, dtype: str) -> Tensor:
        """One of the keys beside a matrix, flat."""
        if part not in parts:
            layer = weight if part not in ("SCB", "weight_format") else weight[: -len(".weight")]
            raise ValueError(f"the checkpoint has no `{layer}.{part}`, which `{weight}` needs")
        tensor = self._checkpoint[parts[part]]
        if tensor.dtype != dtype:
            raise ValueError(f"`{parts[part]}` must be {dtype}, is {tensor.dtype}")
        return tensor.contiguous().reshape(-1)

    def _int8(self, name: str, parts: Mapping[str, str]) -> Tensor:
        if others := sorted(parts.keys() - {"SCB", "weight_format"}):
            raise ValueError(f"`{parts[others[0]]}` does not go with `{name}` in 8 bits")
        codes = self._checkpoint[name]
        if codes.dtype != "int8" or len(codes.shape) != 2:
            raise ValueError(
                f"`{name}` must be a matrix of int8, is {codes.dtype} of {list(codes.shape)}"
            )
        if "weight_format" in parts:
            order = self._part(name, parts, "weight_format", "uint8").tolist()
            if order != [0]:
                raise ValueError(
                    f"`{parts['weight_format']}` is {order}: only matrices in rows (0) can be "
                    "read, not those ordered for a GPU; save it with a newer bitsandbytes"
                )
        absmax = self._part(name, parts, "SCB", "float32")
        return _scaled(name, codes.contiguous(), "llm_int8", codes.shape, absmax, codes.shape[1])

    def _four_bit(self, name: str, parts: Mapping[str, str], format: str) -> Tensor:
        states = sorted(part for part in parts if part.startswith("quant_state."))
        if len(states) > 1:
            raise ValueError(f"`{name}` has {len(states)} states: {', '.join(states)}")
        key = parts[_STATE + format]
        state = _read_state(key, self._part(name, parts, _STATE + format, "uint8"), format)
        code_map = self._part(name, parts, "quant_map", "float32").numpy()
        if not np.array_equal(code_map, codebook(format)):
            raise ValueError(f"`{parts['quant_map']}` is not the codebook of {format}")
        nested: dict[str, Any] = {}
        if state.nested_offset is not None:
            nested = {
                "nested_absmax": self._part(name, parts, "nested_absmax", "float32"),
                "nested_map": self._part(name, parts, "nested_quant_map", "float32"),
                "nested_offset": state.nested_offset,
            }
        elif "nested_absmax" in parts or "nested_quant_map" in parts:
            raise ValueError(f"`{name}` has nested scales, of which its quant_state says nothing")
        absmax = self._part(name, parts, "absmax", "uint8" if nested else "float32")
        codes = _as_bytes(self._checkpoint[name])
        return _scaled(
            name, codes, format, state.shape, absmax, state.block, origin=state.dtype, **nested
        )


@dataclass(frozen=True)
class _State:
    """What a quant_state says, checked. Without an offset scales are not nested."""

    shape: tuple[int, int]
    block: int
    dtype: str
    nested_offset: float | None


def _read_state(key: str, raw: Tensor, format: str) -> _State:
    if raw.size > _LONGEST_STATE:
        raise ValueError(f"`{key}` has {raw.size} bytes, more than any real one")
    try:
        values = json.loads(raw.numpy().tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`{key}` is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"`{key}` must be a JSON object, is {type(values).__name__}")

    def check(member: str, fits: bool, what: str) -> None:
        if not fits:
            raise ValueError(f"`{key}`: {member} must be {what}, was: {values.get(member)!r}")

    shape: Any = values.get("shape")
    block: Any = values.get("blocksize")
    offset: Any = values.get("nested_offset")
    check("quant_type", values.get("quant_type") == format, repr(format))
    check("shape", _is_shape(shape), "the two lengths of a matrix")
    check("blocksize", type(block) is int and block in _BLOCK_SIZES, f"one of {_BLOCK_SIZES}")
    check("dtype", values.get("dtype") in _DTYPES, f"one of {_DTYPES}")
    if any(name.startswith("nested_") for name in values):
        is_number = type(offset) in (int, float) and abs(offset) < _LARGEST
        check("nested_blocksize", values.get("nested_blocksize") == _NESTED_BLOCK, "256")
        check("nested_dtype", values.get("nested_dtype") == "float32", "'float32'")
        check("nested_offset", is_number, "a number")
    return _State((shape[0], shape[1]), block, values["dtype"], offset)


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(length) is int and 0 < length < 1 << 40 for length in value)
    )


def _as_bytes(codes: Tensor) -> Tensor:
    """The bytes of packed codes, whatever type they are stored as."""
    flat = codes.contiguous().reshape(-1)
    if flat.dtype == "uint8":
        return flat
    values = flat.numpy()
    if flat.dtype == "bfloat16":  # as float32, of which it is the upper half
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    return Tensor(values.view(np.uint8))


def _scaled(name: str, codes: Tensor, *arguments: Any, **options: Any) -> Tensor:
    try:
        return scaled_tensor(codes, *arguments, **options)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None


@cache
def codebook(format: str) -> npt.NDArray[np.float32]:
    """The sixteen values of a 4-bit format, as the core has them."""
    codes = np.arange(0, 16, 2, dtype=np.uint8)
    one = np.ones(1, np.float32)
    values: npt.NDArray[np.float32] = scaled_tensor(
        codes << 4 | codes + 1, format, [1, 16], one, 64
    ).numpy()[0]
    return values


def saved_parts(name: str, matrix: Tensor) -> dict[str, Tensor]:
    """The keys under which a quantized matrix is saved, the inverse of what is read here.

    Raises ``ValueError`` for a part of a matrix, whose scales are those of the whole.
    """
    scales, codes = matrix.scales, matrix.codes
    assert scales is not None
    assert codes is not None
    absmax: Tensor = scales["absmax"]
    if scales["first_value"] or absmax.size != -(-matrix.size // scales["block"]):
        raise ValueError(f"`{name}` is part of a quantized matrix, which cannot be saved alone")
    if matrix.dtype == "llm_int8":
        layer = name.removesuffix(".weight")
        order = Tensor(np.zeros((), np.uint8))
        return {name: codes, f"{layer}.SCB": absmax, f"{layer}.weight_format": order}
    parts = {
        name: codes.reshape(-1, 1),
        f"{name}.absmax": absmax,
        f"{name}.quant_map": Tensor(codebook(matrix.dtype)),
    }
    state = {
        "quant_type": matrix.dtype,
        "blocksize": scales["block"],
        "dtype": scales["origin"],
        "shape": list(matrix.shape),
    }
    if "nested_absmax" in scales:
        parts[f"{name}.nested_absmax"] = scales["nested_absmax"]
        parts[f"{name}.nested_quant_map"] = scales["nested_map"]
        state["nested_blocksize"] = _NESTED_BLOCK
        state["nested_dtype"] = "float32"
        state["nested_offset"] = scales["nested_offset"]
    text = json.dumps(state).encode()
    parts[f"{name}.{_STATE}{matrix.dtype}"] = Tensor(np.frombuffer(text, np.uint8))
    return parts
