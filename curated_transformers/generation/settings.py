"""Types of settings, so that an error names the one that is wrong."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, SupportsFloat


def check_whole_number(name: str, value: Any) -> int:
    """``value`` as an int. ``TypeError`` for what is no whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None


def check_number(name: str, value: Any) -> None:
    """``TypeError`` for what is no number."""
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"{name} must be a number, got {value!r}")


def check_callable(name: str, value: Any) -> None:
    """``TypeError`` for what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r}")


def check_piece_ids(name: str, value: Any) -> list[int]:
    """The ids of a collection as a list. ``TypeError`` for what is none."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise TypeError(f"{name} must be piece ids, got {value!r}")
    return [check_whole_number(f"each piece id of {name}", id) for id in value]
