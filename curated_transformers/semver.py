"""For arguments that may be left out in this major version and must be given in the next one."""

from __future__ import annotations

from typing import TypeVar, Union

T = TypeVar("T")


class Default:
    """Stands for the default of such an argument. The class itself is the mark: making an object of
    it is a ``TypeError``."""

    def __new__(cls) -> Default:
        raise TypeError("Default is a mark to be used as it is; it has no instances")


#: ``FutureMandatory[T]``: a ``T``, or the mark.
FutureMandatory = Union[T, type[Default]]  # noqa: UP007  a union with a type variable, at run time
