"""Repositories: named sets of files, and what models and tokenizers ask of them.

A repository needs four methods only, so that anybody can write one; `ModelRepository` and
`TokenizerRepository` wrap it with the file names and the error texts of their kind.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from .atomic import AtomicFiles
from .errors import HubError
from .file import LocalFile, RepositoryFile, check_relative_path

if TYPE_CHECKING:
    from ..checkpoint.index import ModelCheckpointType


class TransactionContext(AbstractContextManager["TransactionContext"]):
    """Files that are written together: all of them at a clean exit, none after an exception."""

    @abstractmethod
    def open(self, path: str, mode: str, encoding: str | None = None) -> IO[Any]:
        """Opens a file of the repository for writing."""

    @property
    @abstractmethod
    def repo(self) -> Repository:
        """The repository that is written to."""


class Repository(ABC):
    """A set of files: a folder, or a repository of the Hugging Face Hub."""

    @abstractmethod
    def file(self, path: str) -> RepositoryFile:
        """The file at ``path``, which need not exist."""

    @abstractmethod
    def pretty_path(self, path: str | None = None) -> str:
        """How messages name the repository, or a file in it."""

    @abstractmethod
    def transaction(self) -> TransactionContext:
        """Begins to write files together."""

    def json_file(self, path: str) -> dict[str, Any]:
        """The JSON object in the file at ``path``.

        Raises ``OSError`` when it cannot be read, ``ValueError`` when it holds something else.
        """
        with self.file(path).open(mode="r", encoding="utf-8") as file:
            try:
                value = json.loads(file.read())
            except RecursionError:
                raise ValueError(
                    f"{self.pretty_path(path)}: the JSON is nested too deeply"
                ) from None
            except ValueError as error:
                raise ValueError(f"{self.pretty_path(path)}: not valid JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError(
                f"{self.pretty_path(path)}: not a JSON object but {type(value).__name__}"
            )
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pretty_path()!r})"


class LocalRepository(Repository):
    """The files of a folder."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)

    def file(self, path: str) -> RepositoryFile:
        return LocalFile(self.path / check_relative_path(path, str(self.path)))

    def pretty_path(self, path: str | None = None) -> str:
        return str(self.path / path) if path else str(self.path)

    def transaction(self) -> TransactionContext:
        return LocalTransaction(self)


class LocalTransaction(TransactionContext):
    """Writes beside the final files, and renames at a clean exit."""

    def __init__(self, repo: LocalRepository) -> None:
        self._repo = repo
        self._files = AtomicFiles(repo.path)

    @property
    def repo(self) -> Repository:
        return self._repo

    def open(self, path: str, mode: str, encoding: str | None = None) -> IO[Any]:
        if "w" not in mode or "+" in mode:
            raise OSError(f"File open mode '{mode}' is not supported inside a transaction")
        return self._files.open(check_relative_path(path, self._repo.pretty_path()), mode, encoding)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)


class _Wrapper(Repository):
    """Another repository's files. ``TypeError`` for what is none."""

    def __init__(self, repo: Repository) -> None:
        if not isinstance(repo, Repository):
            raise TypeError(
                f"repo must be a Repository, got {type(repo).__name__}; from_path takes paths, and "
                "from_hf_hub names"
            )
        self.repo = repo

    def file(self, path: str) -> RepositoryFile:
        return self.repo.file(path)

    def json_file(self, path: str) -> dict[str, Any]:
        return self.repo.json_file(path)

    def pretty_path(self, path: str | None = None) -> str:
        return self.repo.pretty_path(path)

    def transaction(self) -> TransactionContext:
        return self.repo.transaction()


class ModelRepository(_Wrapper):
    """A repository that holds a model."""

    def __init__(self, repo: Repository) -> None:
        super().__init__(repo)
        self._config: dict[str, Any] | None = None

    def model_config(self) -> dict[str, Any]:
        """``config.json``. Raises ``OSError`` when it is missing or not a JSON object: a
        ``FileNotFoundError`` or ``HubError`` where that is the reason."""
        if self._config is None:
            try:
                self._config = self.json_file("config.json")
            except (OSError, ValueError) as error:
                where = self.pretty_path("config.json")
                prefix = f"Cannot load config for the model at `{where}`: "
                if isinstance(error, FileNotFoundError):
                    prefix += _gguf_hint(self.repo)
                raise _with_prefix(prefix, error) from error
        return self._config

    def model_checkpoints(self) -> tuple[Sequence[RepositoryFile], ModelCheckpointType]:
        """The files that hold the parameters, and their kind. Raises ``OSError`` without any."""
        from ..checkpoint.index import find_checkpoints

        return find_checkpoints(self.repo)

    def model_type(self) -> str:
        """``model_type`` of the config. Raises ``OSError`` when there is none."""
        kind = self.model_config().get("model_type")
        if not isinstance(kind, str):
            where = self.pretty_path("config.json")
            raise OSError(f"Cannot load config for the model at `{where}`: it has no `model_type`")
        return kind


class TokenizerRepository(_Wrapper):
    """A repository that holds a tokenizer."""

    def __init__(self, repo: Repository) -> None:
        super().__init__(repo)
        self._config: dict[str, Any] | None = None

    def tokenizer_json(self) -> RepositoryFile:
        """``tokenizer.json``, which need not exist."""
        return self.file("tokenizer.json")

    def tokenizer_config(self) -> dict[str, Any]:
        """``tokenizer_config.json``. Raises ``OSError`` when it is missing or not a JSON object."""
        if self._config is None:
            try:
                self._config = self.json_file("tokenizer_config.json")
            except (OSError, ValueError) as error:
                where = self.pretty_path("tokenizer_config.json")
                prefix = f"Couldn't find a valid config for the tokenizer at `{where}`: "
                raise _with_prefix(prefix, error) from error
        return self._config

    def special_tokens_map(self) -> dict[str, Any]:
        """``special_tokens_map.json``. Raises ``OSError`` like ``tokenizer_config``."""
        try:
            return self.json_file("special_tokens_map.json")
        except (OSError, ValueError) as error:
            where = self.pretty_path("special_tokens_map.json")
            prefix = f"Could not load special tokens map for the tokenizer at `{where}`: "
            raise _with_prefix(prefix, error) from error

    def chat_template(self) -> str | None:
        """The text of ``chat_template.jinja``, if there is one."""
        file = self.file("chat_template.jinja")
        if not file.is_there():
            return None
        with file.open(mode="r", encoding="utf-8") as template:
            text: str = template.read()
        return text

    def model_type(self) -> str:
        """``model_type`` of the model that the repository also holds."""
        return ModelRepository(self.repo).model_type()


def _gguf_hint(repo: Repository) -> str:
    """What to do with a folder of GGUF files, which have their configurations in them."""
    files = sorted(repo.path.glob("*.gguf")) if isinstance(repo, LocalRepository) else []
    return f"the folder has GGUF files, load one by its path, as `{files[0]}`: " if files else ""


def _with_prefix(prefix: str, error: Exception) -> OSError:
    """An error about a file that is missing or broken, of the reason's kind if that is one of the
    Hub's, or that there is no such file."""
    if isinstance(error, HubError):
        return error.with_prefix(prefix)
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
    return kind(f"{prefix}{error}")
