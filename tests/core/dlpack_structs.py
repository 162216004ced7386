"""DLPack's structs in ctypes, written from its header: a consumer and a producer for tests.

Only CPU tensors of float32 are produced, unless the fields are changed.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Any

import numpy as np

CPU, CUDA = 1, 2
INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL = 0, 1, 2, 4, 5, 6
READ_ONLY, IS_COPIED = 1, 2


class DLTensor(Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class Managed(Structure):
    pass


class Versioned(Structure):
    pass


Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Managed._fields_ = (
    ("tensor", DLTensor),
    ("context", ctypes.c_void_p),
    ("deleter", ctypes.c_void_p),
)
Versioned._fields_ = (
    ("major", c_uint32),
    ("minor", c_uint32),
    ("context", ctypes.c_void_p),
    ("deleter", ctypes.c_void_p),
    ("flags", c_uint64),
    ("tensor", DLTensor),
)
NAMES = {b"dltensor": Managed, b"dltensor_versioned": Versioned}
USED = {b"dltensor": b"used_dltensor", b"dltensor_versioned": b"used_dltensor_versioned"}

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = (ctypes.py_object,)
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_api.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)


def capsule_name(capsule: Any) -> bytes:
    return _api.PyCapsule_GetName(capsule)


def look_into(capsule: Any) -> Any:
    """The struct inside, which the capsule still owns."""
    name = capsule_name(capsule)
    return NAMES[name].from_address(_api.PyCapsule_GetPointer(capsule, name))


def consume(capsule: Any) -> Any:
    """Takes the struct, as a consumer does; ``delete`` has to follow."""
    managed = look_into(capsule)
    _api.PyCapsule_SetName(capsule, USED[capsule_name(capsule)])
    return managed


def delete(managed: Any) -> None:
    Deleter(managed.deleter)(ctypes.addressof(managed))


def values_of(tensor: DLTensor) -> list[float]:
    """A one-dimensional float32 tensor's elements."""
    start = ctypes.cast(tensor.data + tensor.byte_offset, POINTER(ctypes.c_float))
    return [start[i * tensor.strides[0]] for i in range(tensor.shape[0])]


class Producer:
    """Exports a float32 array and counts how often, and where, it is released.

    ``versions``: 1 knows max_version, 0 is a producer from before DLPack 1.0 and refuses it.
    """

    def __init__(self, array: Any, *, version: int = 1, flags: int = 0, **fields: Any) -> None:
        self.array = np.asarray(array, dtype=np.float32)
        self.version, self.flags, self.fields = version, flags, fields
        self.released_by: list[int] = []
        self._kept: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0

    def __dlpack__(self, **options: Any) -> Any:
        if self.version == 0 and options:
            raise TypeError("__dlpack__() got an unexpected keyword argument")
        shape = (c_int64 * self.array.ndim)(*self.array.shape)
        strides = (c_int64 * self.array.ndim)(*(s // 4 for s in self.array.strides))
        tensor = DLTensor(
            data=self.array.ctypes.data,
            device_type=CPU,
            ndim=self.array.ndim,
            code=FLOAT,
            bits=32,
            lanes=1,
            shape=shape,
            strides=strides,
        )
        for name, value in self.fields.items():
            setattr(tensor, name, value)
        deleter = Deleter(lambda _: self.released_by.append(threading.get_ident()))
        address = ctypes.cast(deleter, ctypes.c_void_p).value
        managed: Any
        if self.version == 0:
            managed, name = Managed(tensor=tensor, deleter=address), b"dltensor"
        else:
            managed, name = (
                Versioned(major=self.version, deleter=address, flags=self.flags, tensor=tensor),
                b"dltensor_versioned",
            )
        self._kept += [shape, strides, deleter, managed]
        return _api.PyCapsule_New(ctypes.addressof(managed), name, None)
