"""Vocabulary files: reading them, and saying which one is broken and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO, Any, Protocol, TypeVar

from ...repository.repository import Repository, TokenizerRepository

T = TypeVar("T")
D = TypeVar("D", bool, None)


class OpenableFile(Protocol):
    """What the tokenizers read from: a repository's file, a path, or anything with this method."""

    def open(self, mode: str = ..., encoding: str | None = ...) -> IO[Any]:
        """Opens the file as the built-in ``open`` does."""


class NamedFile:
    """A file of a repository; ``path`` is how messages name it."""

    def __init__(self, repo: Repository, path: str) -> None:
        self.path = repo.pretty_path(path)
        self._file = repo.file(path)

    def open(self, mode: str = "rb", encoding: str | None = None) -> IO[Any]:
        return self._file.open(mode=mode, encoding=encoding)


def file_name(file: OpenableFile) -> str:
    """How messages name a file."""
    return str(getattr(file, "path", None) or file)


def read_bytes(file: OpenableFile) -> bytes:
    """The content of a file. Raises ``FileNotFoundError`` or ``OSError`` as its ``open`` does."""
    with file.open(mode="rb", encoding=None) as opened:
        content: bytes = opened.read()
    return content


def read_lines(file: OpenableFile) -> list[str]:
    """The lines of a text file without their ends. Raises ``ValueError`` when it is not UTF-8."""
    with file.open(mode="r", encoding="utf-8") as opened:
        try:
            return [line.rstrip("\r\n") for line in opened]
        except UnicodeDecodeError as error:
            raise ValueError(f"{file_name(file)}: not UTF-8: {error}") from None


def read_vocab_json(file: OpenableFile) -> dict[str, int]:
    """A vocabulary: a JSON object with ids as values.

    Raises ``ValueError`` for anything else, and when a piece or an id stands twice.
    """
    text, name = "\n".join(read_lines(file)), file_name(file)
    try:
        value = json.loads(text, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not a valid vocabulary: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: not a JSON object but {type(value).__name__}")
    return located(name, check_ids, value)


def check_ids(vocab: dict[str, int]) -> dict[str, int]:
    """``vocab`` itself. Raises ``ValueError`` for ids that are no ids or stand twice."""
    pieces: dict[int, str] = {}
    for piece, piece_id in vocab.items():
        if not isinstance(piece_id, int) or isinstance(piece_id, bool) or piece_id < 0:
            raise ValueError(f"The id of piece '{piece}' must be a number from 0, was {piece_id!r}")
        if piece_id in pieces:
            raise ValueError(
                f"Pieces '{pieces[piece_id]}' and '{piece}' have the same id {piece_id}"
            )
        pieces[piece_id] = piece
    return vocab


def located(name: str, make: Callable[..., T], *args: Any, **options: Any) -> T:
    """What ``make`` returns; the name of the file is put before the text of a ``ValueError``."""
    try:
        return make(*args, **options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def optional_config(repo: Repository) -> dict[str, Any]:
    """``tokenizer_config.json``, empty when there is none. Raises ``OSError`` when it is broken."""
    files = TokenizerRepository(repo)
    return files.tokenizer_config() if files.file("tokenizer_config.json").is_there() else {}


def config_flag(config: dict[str, Any], key: str, default: D) -> bool | D:
    """A boolean of the config; absent and null are the default. Raises ``ValueError``."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"tokenizer_config.json: `{key}` must be true or false, was {value!r}")
    return default if value is None else value


def config_piece(config: dict[str, Any], key: str, default: str) -> str:
    """A piece of the config, a string or an object with ``content``. Raises ``ValueError``."""
    value = config.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise ValueError(f"tokenizer_config.json: `{key}` must be a piece, was {value!r}")
    return default if value is None else value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    distinct = dict(pairs)
    if len(distinct) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"piece '{key}' stands twice")
            seen.add(key)
    return distinct
