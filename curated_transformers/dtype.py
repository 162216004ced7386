"""Element types by any of the names that callers use; nothing here imports what defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._core import DTYPES

if TYPE_CHECKING:
    from ._core import DTypeName

_ALIASES = {"float": "float32", "half": "float16", "long": "int64", "int": "int32"}


def dtype_name(dtype: Any) -> DTypeName:
    """The core's name of an element type.

    ``dtype`` is a name (also ``float``, ``half``, ``torch.float16``), a NumPy dtype or scalar type,
    or a ``torch.dtype``. Raises ``ValueError`` for a type that tensors cannot have, ``TypeError``
    for a value that is no element type.
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
    if name not in DTYPES:
        raise ValueError(f"Invalid torch dtype `{text}`; supported: {', '.join(DTYPES)}")
    return cast("DTypeName", name)
