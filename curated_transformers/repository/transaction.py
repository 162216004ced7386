"""Writing to the Hub: files are staged in a temporary folder, and uploaded when all went well."""

from __future__ import annotations

import codecs
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from .file import check_relative_path
from .repository import TransactionContext
from .upload import Addition, upload

if TYPE_CHECKING:
    from .hf_hub import HfHubRepository

#: Modes in which a file of the Hub can be written.
WRITING_MODES = ("w", "wb", "wt")


class HfHubTransaction(TransactionContext):
    """Files that become one commit at a clean exit; after an exception nothing is uploaded."""

    def __init__(self, repo: HfHubRepository) -> None:
        self._repo = repo
        self._folder = tempfile.TemporaryDirectory(prefix="curated-transformers-")
        self._staged: dict[str, tuple[Path, IO[Any]]] = {}

    @property
    def repo(self) -> HfHubRepository:
        return self._repo

    def open(self, path: str, mode: str, encoding: str | None = None) -> IO[Any]:
        if mode not in WRITING_MODES:
            raise OSError(f"File open mode '{mode}' is not supported inside a transaction")
        check_relative_path(path, self._repo.pretty_path())
        if path in self._staged:
            raise OSError(f"Path '{path}' has already been opened")
        source = Path(self._folder.name) / str(len(self._staged))
        file: IO[Any] = source.open(mode, encoding=encoding)
        self._staged[path] = source, file
        return file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for _, file in self._staged.values():
                file.close()
            if kind is None and self._staged:
                additions = [Addition(path, source) for path, (source, _) in self._staged.items()]
                upload(self._repo.name, self._repo.revision, additions)
                self._repo.forget_commit()
        finally:
            self._folder.cleanup()


def open_for_upload(
    mode: str, encoding: str | None, upload_file: Callable[[Path], None]
) -> IO[Any]:
    """A file that is given to ``upload_file`` when it is closed, if no exception left its
    ``with`` block. One that is forgotten instead of closed is not uploaded."""
    codecs.lookup(encoding or "utf-8")  # fails before there is anything to clean up
    handle, name = tempfile.mkstemp(prefix="curated-transformers-")
    staged = _Staged(Path(name), upload_file)
    raw = io.FileIO(handle, "wb")
    if mode == "wb":
        return _BinaryUpload(raw, staged)
    return _TextUpload(io.BufferedWriter(raw), staged, encoding)


class _Staged:
    """The temporary file behind a stream."""

    def __init__(self, path: Path, upload_file: Callable[[Path], None]) -> None:
        self.is_wanted = True
        self._path = path
        self._upload_file = upload_file

    def finish(self) -> None:
        try:
            if self.is_wanted:
                self._upload_file(self._path)
        finally:
            os.unlink(self._path)

    def forget(self) -> None:
        self.is_wanted = False
        warnings.warn(
            "a file for the Hub was not closed, and is not uploaded", ResourceWarning, stacklevel=3
        )


class _Upload(io.IOBase):
    """A stream whose closing uploads what was written."""

    _staged: _Staged

    def close(self) -> None:
        if not self.closed:
            _close(super().close, self._staged)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._staged.is_wanted = kind is None
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self._staged.forget()
            self.close()


class _BinaryUpload(_Upload, io.BufferedWriter):
    def __init__(self, raw: io.FileIO, staged: _Staged) -> None:
        super().__init__(raw)
        self._staged = staged


class _TextUpload(_Upload, io.TextIOWrapper):
    def __init__(self, buffer: io.BufferedWriter, staged: _Staged, encoding: str | None) -> None:
        super().__init__(buffer, encoding=encoding)
        self._staged = staged


def _close(close: Callable[[], None], staged: _Staged) -> None:
    try:
        close()
    except BaseException:
        staged.is_wanted = False
        raise
    finally:
        staged.finish()
