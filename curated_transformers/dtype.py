"""Element types by any of the names that callers use; nothing here imports what defines them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._core import DTYPES

if TYPE_CHECKING:
    from ._core import DTypeName

#: What the weights and results of a model can be.
MODEL_DTYPES = ("float32", "float16", "bfloat16")

_ALIASES = {"float": "float32", "half": "float16", "long": "int64", "int": "int32"}


def dtype_name(dtype: Any, supported: Collection[str] = DTYPES) -> DTypeName:
    """The core's name of an element type, one of those that are ``supported``.

    ``dtype`` is a name (also ``float``, ``half``, ``torch.float16``), a NumPy dtype or scalar type,
    or a ``torch.dtype``. Raises ``ValueError`` for a type that is not supported, by default one
    that tensors cannot have, and ``TypeError`` for a value that is no element type.
    """
    text = dtype if isinstance(dtype, str) else str(dtype)
    if not isinstance(dtype, str) and not text.startswith("torch."):
        try:
            # NumPy would take None for float64.
            text = np.dtype("None" if dtype is None else dtype).name
        except TypeError:
            raise TypeError(
                "dtype must be a name, a NumPy dtype or a torch.dtype, "
                f"got {type(dtype).__name__}: {dtype!r}"
            ) from None
    name = text.removeprefix("torch.")
    name = _ALIASES.get(name, name)
    if name not in supported:
        raise ValueError(f"Invalid torch dtype `{text}`; supported: {', '.join(supported)}")
    return cast("DTypeName", name)
