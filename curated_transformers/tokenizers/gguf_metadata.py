"""The keys of a GGUF file that describe its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# `tokenizer.ggml.token_type`
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


class GGUFMetadata:
    """The keys below `tokenizer.ggml.` with their types checked."""

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.values.get(f"tokenizer.ggml.{key}", default)
        if type(value) is not kind and value is not default:
            raise self.error(key, f"must be {kind.__name__}, is {value!r:.40}")
        return value

    def strings(self, key: str) -> list[str]:
        values: list[str] = self.get(key, list)
        if not values or not all(type(value) is str for value in values):
            raise self.error(key, "must be a list of strings")
        return values

    def numbers(self, key: str, count: int) -> list[float]:
        values: list[float] = self.get(key, list)
        if not values or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
            raise self.error(key, "must be a list of finite numbers")
        if len(values) != count:
            raise self.error(key, f"has {len(values)} entries for {count} pieces")
        return values

    def piece_id(self, name: str, n_pieces: int, default: int | None = None) -> int | None:
        """The id of a special piece, where there is one."""
        key = f"{name}_token_id"
        index: int | None = self.get(key, int)
        if index is None:
            return default if default is not None and default < n_pieces else None
        if not 0 <= index < n_pieces:
            raise self.error(key, f"{index} is outside of {n_pieces} pieces")
        return index

    def error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.path}: tokenizer.ggml.{key} {what}")

    def pieces(self) -> list[str]:
        """`tokens`, each of them once."""
        pieces = self.strings("tokens")
        if len(set(pieces)) != len(pieces):
            raise self.error("tokens", "holds a piece twice")
        return pieces

    def piece_types(self, n_pieces: int) -> list[int]:
        """`token_type`; without it all pieces are normal ones."""
        types: list[int] = self.get("token_type", list, [NORMAL] * n_pieces)
        if len(types) != n_pieces:
            raise self.error("token_type", f"has {len(types)} entries for {n_pieces} pieces")
        return types
