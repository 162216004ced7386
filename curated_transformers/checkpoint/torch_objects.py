"""What a pickle of torch may make: storages, and tensors that lie in them.

Nothing here holds data. A storage is its type, its key and its length; a tensor is a place in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .restricted_pickle import Global, Globals

#: Type of a storage -> bytes of an element.
STORAGE_TYPES: Final = {
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "DoubleStorage": 8,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "UntypedStorage": 1,
}

_DTYPES = (
    *("float32", "float16", "bfloat16", "float64", "bool"),
    *("int64", "int32", "int16", "int8", "uint8"),
)
_MOST_DIMENSIONS = 64  # torch's own limit
_MOST_ELEMENTS = 2**62
_MOST_SHOWN = 5
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class StorageRef:
    """A storage that a pickle refers to: its type, its name in the file, its elements. The device
    from which it was saved does not matter."""

    type: str
    key: str
    n_elements: int

    @property
    def n_bytes(self) -> int:
        """Its length."""
        return self.n_elements * STORAGE_TYPES[self.type]


@dataclass(frozen=True)
class TensorRef:
    """A tensor: a storage, where in it the first element lies, and, in elements, shape and
    strides."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def n_elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements follow each other in the storage."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return self.n_elements == 0
            expected *= size
        return True

    @property
    def span(self) -> int:
        """From the first of its elements to behind the last one, in the storage."""
        if self.n_elements == 0:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))


def storage_of(pickled: Any, *, legacy: bool, storages: dict[str, StorageRef]) -> StorageRef:
    """The storage of a persistent id, which is also added to those by key.

    Raises ``ValueError`` for anything that is not one, or says something else about a storage that
    was named before.
    """
    parts = 6 if legacy else 5
    if type(pickled) is not tuple or len(pickled) != parts or pickled[0] != "storage":
        raise ValueError("it refers to something that is not a storage")
    kind, key, location, n_elements = pickled[1:5]
    if not isinstance(kind, Global) or kind.name not in STORAGE_TYPES:
        raise ValueError("the type of a storage is not one")
    if type(key) is not str or type(location) is not str:
        raise ValueError("key and location of a storage are not strings")
    if not _is_size(n_elements):
        raise ValueError("the length of a storage is not a size")
    if legacy and pickled[5] is not None:
        raise ValueError(f"storage `{key[:_LONGEST_SHOWN]}` is part of another one")
    found = StorageRef(kind.name, key, n_elements)
    if storages.setdefault(key, found) != found:
        raise ValueError(f"storage `{key[:_LONGEST_SHOWN]}` has two types or lengths")
    return storages[key]


def _rebuild_tensor(arguments: tuple[Any, ...]) -> TensorRef:
    """storage, offset, shape, strides, requires_grad, hooks; newer: what else is to be done."""
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], StorageRef):
        raise ValueError("a tensor is made of something else than a storage")
    if len(arguments) == 7 and arguments[6]:
        raise ValueError("a tensor has metadata, which is not supported")
    storage, offset, shape, strides = arguments[:4]
    if storage.type == "UntypedStorage":
        raise ValueError("a tensor lies in a storage without a type")
    if not (_is_size(offset) and _are_sizes(shape) and _are_sizes(strides)):
        raise ValueError("offset, shape and strides of a tensor are not sizes")
    if len(shape) != len(strides):
        raise ValueError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    tensor = TensorRef(storage, offset, shape, strides)
    if offset + tensor.span > storage.n_elements:
        raise ValueError(
            f"a tensor ends at element {_shown(offset + tensor.span)} of a storage of "
            f"{storage.n_elements}"
        )
    # An expanded tensor of a few bytes in the file could have any size in memory.
    if tensor.n_elements > storage.n_elements:
        raise ValueError(
            f"a tensor has {_shown(tensor.n_elements)} elements in a storage of "
            f"{storage.n_elements}; save it with contiguous()"
        )
    return tensor


def _rebuild_parameter(arguments: tuple[Any, ...]) -> TensorRef:
    """data, requires_grad, hooks."""
    if len(arguments) != 3 or not isinstance(arguments[0], TensorRef):
        raise ValueError("a parameter is made of something else than a tensor")
    return arguments[0]


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    if len(arguments) != 1 or not _are_sizes(arguments[0]):
        raise ValueError("a torch.Size is not made of sizes")
    result: tuple[int, ...] = arguments[0]
    return result


def _globals() -> Globals:
    calls: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any] | None] = {
        ("collections", "OrderedDict"): None,  # the unpickler's own
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch", "Size"): _size,
        ("torch.storage", "UntypedStorage"): None,
        **{("torch", name): None for name in STORAGE_TYPES if name != "UntypedStorage"},
        **{("torch", name): None for name in _DTYPES},
    }
    return {path: Global(*path, call) for path, call in calls.items()}


#: All that a checkpoint may ask for.
TORCH_GLOBALS: Final = _globals()


def state_of(value: Any) -> dict[str, TensorRef]:
    """The tensors of a state. ``ValueError`` names what else there is, for a checkpoint of a
    training run has its state under one of several keys."""
    if not isinstance(value, dict):
        kind = "tensor" if isinstance(value, TensorRef) else type(value).__name__
        raise ValueError(f"it holds a {kind}, not a state: a dict from name to tensor")
    for key, one in value.items():
        if not isinstance(key, str) or not isinstance(one, TensorRef):
            names = [str(name)[:_LONGEST_SHOWN] for name in list(value)[:_MOST_SHOWN]]
            more = f" and {len(value) - _MOST_SHOWN} more" if len(value) > _MOST_SHOWN else ""
            raise ValueError(
                f"it holds no plain state, a dict from name to tensor: "
                f"`{str(key)[:_LONGEST_SHOWN]}` is a {type(one).__name__}; "
                f"its keys are {', '.join(names)}{more}. Where one of them has the state, save "
                "that alone"
            )
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST_ELEMENTS


def _are_sizes(value: Any) -> bool:
    return type(value) is tuple and len(value) <= _MOST_DIMENSIONS and all(map(_is_size, value))


def _shown(number: int) -> str:
    return str(number) if number < _MOST_ELEMENTS else "more than 2**62"
