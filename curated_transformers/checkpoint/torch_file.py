"""Torch's checkpoints: a pickle that says where tensors lie, and their storages.

Two containers: zip archives (since 1.6), whose storages are stored entries, and the older sequence
of pickles with the storages behind them. In both the tensors are views of the mapped file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core import Tensor
from .restricted_pickle import MAX_PICKLE, CheckpointUnpicklingError, RestrictedUnpickler
from .tensor_file import TensorFile, TensorInfo
from .torch_objects import (
    STORAGE_TYPES,
    TORCH_GLOBALS,
    StorageRef,
    TensorRef,
    state_of,
    storage_of,
)
from .zip_archive import ZipArchive

_ZIP = b"PK\3\4"
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_ZIP_VERSIONS = range(1, 11)
_MOST_IN_NOTE = 64  # bytes of an entry that holds one word

#: NumPy's dtype for the bits of an element.
_BITS = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.uint16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclass(frozen=True)
class _Strided(TensorInfo):
    """A tensor whose elements do not follow each other; ``strides`` in elements."""

    strides: tuple[int, ...]


class TorchFile(TensorFile):
    """The tensors of a file that ``torch.save`` made of a state (a dict from name to tensor).

    The file's pickle can only make tensors: ``CheckpointUnpicklingError``, a ``ValueError`` and a
    ``pickle.UnpicklingError``, names whatever else it asks for. Tensors are views of the file; what
    lies there at odd places (as in the older format), is transposed or has float64, which becomes
    float32, is copied when it is asked for.
    """

    format = "torch"
    supported = {  # noqa: RUF012 (never changed)
        "FloatStorage": "float32",
        "HalfStorage": "float16",
        "BFloat16Storage": "bfloat16",
        "DoubleStorage": "float32",
        "LongStorage": "int64",
        "IntStorage": "int32",
        "CharStorage": "int8",
        "ByteStorage": "uint8",
        "BoolStorage": "bool",
    }

    def __init__(self, path: str | PathLike[str], *, source: str | None = None) -> None:
        super().__init__(path, source=source)
        self._storages: dict[str, StorageRef] = {}
        with memoryview(self._file) as raw:
            is_zip = bytes(raw[:4]) == _ZIP
            state, begins = self._read_zip(raw) if is_zip else self._read_legacy(raw)
        for name, tensor in state.items():
            self.infos[name] = _info(tensor, begins[tensor.storage.key])
        uses = Counter(self.infos.values())
        self._shared = {info for info, n in uses.items() if n > 1}
        self._copies: dict[TensorInfo, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        if info in self._copies:
            return self._copies[info]
        strided = isinstance(info, _Strided) and info.dtype in _BITS
        if strided or info.dtype == "DoubleStorage":
            tensor = self._copied(info)
        else:
            tensor = super().__getitem__(name)
            if info.begin % STORAGE_TYPES[info.dtype] == 0:
                return tensor  # a view
        if info in self._shared:  # one copy serves all its names
            self._copies[info] = tensor
        return tensor

    def _copied(self, info: TensorInfo) -> Tensor:
        """A tensor that cannot be used where it lies."""
        with memoryview(self._file) as raw:
            bits = np.dtype(_BITS[info.dtype]).newbyteorder("<")
            strides = info.strides if isinstance(info, _Strided) else None
            step = None if strides is None else [stride * bits.itemsize for stride in strides]
            view: npt.NDArray[Any] = np.ndarray(info.shape, bits, raw, info.begin, step)
            values = np.array(view, order="C")  # owns its memory, so that the view can go
            del view
        if info.dtype == "BFloat16Storage":
            return Tensor((values.astype(np.uint32) << 16).view(np.float32)).to("bfloat16")
        if info.dtype == "DoubleStorage":
            with np.errstate(over="ignore"):  # becomes infinite, as in torch
                values = values.astype(np.float32)
        return Tensor(values)

    # Zip archives.

    def _read_zip(self, raw: memoryview) -> tuple[dict[str, TensorRef], dict[str, int]]:
        archive = ZipArchive(raw, self.error)
        pickles = [name for name in archive.entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self.error(f"it has {len(pickles)} entries `data.pkl` instead of one")
        prefix = pickles[0].removesuffix("data.pkl")
        order = self._note(archive, f"{prefix}byteorder", "little")
        if order != "little":
            raise self.error(f"its byte order is `{order}`; only little-endian is supported")
        version = self._note(archive, f"{prefix}version", "3")
        if version not in map(str, _ZIP_VERSIONS):
            raise self.error(f"its version `{version}` is unknown")
        pickle = memoryview(archive.read(pickles[0], MAX_PICKLE))
        unpickler = self._unpickler(pickle, legacy=False)
        state = self._state(unpickler)
        if unpickler.position != len(pickle):
            raise self.error("its pickle ends before the entry does")
        begins = {}
        for key, storage in self._storages.items():
            entry = archive.entries.get(f"{prefix}data/{key}")
            if entry is None:
                raise self.error(f"storage `{key}` is missing")
            if not entry.is_stored:
                raise self.error(f"storage `{key}` is compressed")
            if entry.size != storage.n_bytes:
                raise self.error(
                    f"storage `{key}` has {entry.size} bytes instead of {storage.n_bytes}"
                )
            begins[key] = entry.begin
        return state, begins

    def _note(self, archive: ZipArchive, name: str, default: str) -> str:
        if name not in archive.entries:
            return default
        return archive.read(name, _MOST_IN_NOTE).decode("ascii", "replace").strip()

    # The format before 1.6.

    def _read_legacy(self, raw: memoryview) -> tuple[dict[str, TensorRef], dict[str, int]]:
        position = 0
        if bytes(raw[:2]) != b"\x80\2":
            raise self.error("it is neither a zip archive nor a pickle")
        for what, accepts in (
            ("magic number", lambda value: value == _MAGIC),
            ("version", lambda value: value == _LEGACY_VERSION),
            ("byte order", lambda v: isinstance(v, dict) and v.get("little_endian") is True),
        ):
            unpickler = RestrictedUnpickler(raw, self.path, {}, None, position)
            if not accepts(unpickler.load()):
                raise self.error(f"its {what} is not the expected one")
            position = unpickler.position
        unpickler = self._unpickler(raw, legacy=True, position=position)
        state = self._state(unpickler)
        unpickler = RestrictedUnpickler(raw, self.path, {}, None, unpickler.position)
        keys = unpickler.load()
        if not isinstance(keys, list) or not all(type(key) is str for key in keys):
            raise self.error("its storages are not a list of keys")
        if len(keys) != len(self._storages) or set(keys) != self._storages.keys():
            raise self.error("its storages are not those that its tensors need")
        return state, self._legacy_storages(raw, unpickler.position, keys)

    def _legacy_storages(self, raw: memoryview, position: int, keys: list[str]) -> dict[str, int]:
        """Where each begins: they follow each other, each behind its number of elements."""
        begins = {}
        for key in keys:
            storage = self._storages[key]
            if position + 8 + storage.n_bytes > len(raw):
                raise self.error(f"storage `{key}` ends behind the file")
            n_elements = int.from_bytes(raw[position : position + 8], "little")
            if n_elements != storage.n_elements:
                raise self.error(
                    f"storage `{key}` has {n_elements} elements instead of {storage.n_elements}"
                )
            begins[key] = position + 8
            position += 8 + storage.n_bytes
        if position != len(raw):
            raise self.error(f"its storages end at byte {position}, the file has {len(raw)} bytes")
        return begins

    # Both.

    def _unpickler(
        self, raw: memoryview, *, legacy: bool, position: int = 0
    ) -> RestrictedUnpickler:
        def persistent_load(pickled: Any) -> StorageRef:
            return storage_of(pickled, legacy=legacy, storages=self._storages)

        return RestrictedUnpickler(raw, self.path, TORCH_GLOBALS, persistent_load, position)

    def _state(self, unpickler: RestrictedUnpickler) -> dict[str, TensorRef]:
        value = unpickler.load()
        try:
            return state_of(value)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


def _info(tensor: TensorRef, begin: int) -> TensorInfo:
    size = STORAGE_TYPES[tensor.storage.type]
    first = begin + tensor.offset * size
    last = first + tensor.span * size
    if tensor.is_contiguous:
        return TensorInfo(tensor.storage.type, tensor.shape, first, last)
    return _Strided(tensor.storage.type, tensor.shape, first, last, tensor.strides)


__all__ = ["CheckpointUnpicklingError", "TorchFile"]
