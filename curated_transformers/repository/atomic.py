"""Writing files of a folder so that each is either the old one or the new one, whole."""

from __future__ import annotations

import codecs
import os
import re
import secrets
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class AtomicFiles(AbstractContextManager["AtomicFiles"]):
    """Files that are written beside their places, and put there at a clean exit, in the order in
    which they were opened; after an exception nothing has changed.

    At the exit everything is on the disk before the first file gets its name. Then files of the
    folder whose whole name matches ``replaces`` and that were not written are removed.
    """

    def __init__(self, folder: Path, replaces: str = r"(?!)") -> None:
        self._folder = folder
        self._replaces = re.compile(replaces)
        self._staged: dict[Path, tuple[Path, IO[Any]]] = {}

    def open(self, name: str, mode: str = "wb", encoding: str | None = None) -> IO[Any]:
        """A new file, in folders that are made for it; closing it is left to the exit. ``OSError``
        for a name that was opened before."""
        place = self._folder / name
        if place in self._staged:
            raise OSError(f"Path '{name}' has already been opened")
        codecs.lookup(encoding or "utf-8")  # fails before there is anything to clean up
        place.parent.mkdir(parents=True, exist_ok=True)
        staged = place.with_name(f"{place.name}.{os.getpid()}-{secrets.token_hex(4)}.incomplete")
        file = staged.open(mode.replace("w", "x"), encoding=encoding)
        self._staged[place] = (staged, file)
        return file

    def finish(self, file: IO[Any]) -> None:
        """Closes a file when it is on the disk."""
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            for staged, file in self._staged.values():
                with suppress(OSError):  # it flushes, which fails again on a full disk
                    file.close()
                staged.unlink(missing_ok=True)
            self._staged.clear()

    def _commit(self) -> None:
        if not self._staged:
            return
        for _, file in self._staged.values():
            if not file.closed:
                self.finish(file)
        for place, (staged, _) in self._staged.items():
            staged.replace(place)
        for path in self._folder.iterdir():
            if self._replaces.fullmatch(path.name) and path not in self._staged:
                path.unlink()
        for folder in {place.parent for place in self._staged}:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
