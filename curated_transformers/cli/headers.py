"""The tensors of a checkpoint, without reading any: files that are here are mapped, and of those on
the Hub only the headers are fetched, where the format has one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from .._core import Tensor
from ..checkpoint import GGUFFile
from ..checkpoint.index import ModelCheckpointType, find_checkpoints
from ..checkpoint.safetensors import MAX_HEADER, SafeTensorsFile
from ..checkpoint.tensor_file import TensorFile, TensorInfo
from ..repository import HfHubFile, Repository
from ..repository.beginning import announced, receive
from ..repository.transport import Flow, run

#: What is fetched at first; enough for the header of most files.
_FIRST = 1 << 16


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint, those of them whose headers are known, all bytes, and how many
    files were not downloaded."""

    kind: str
    n_files: int
    headers: list[TensorFile]
    size: int
    n_remote: int = 0

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """What the headers say, by name."""
        return {name: info for file in self.headers for name, info in file.infos.items()}


def gguf_checkpoint(file: GGUFFile) -> Checkpoint:
    """A GGUF file as a checkpoint."""
    return Checkpoint("GGUF", 1, [file], os.path.getsize(file.path))


def read_headers(repo: Repository) -> Checkpoint:
    """The checkpoint of a repository.

    Raises as ``find_checkpoints`` and the files' formats do.
    """
    files, kind = find_checkpoints(repo)
    remote = [file for file in files if isinstance(file, HfHubFile) and file.path is None]
    has_header = kind is ModelCheckpointType.SAFE_TENSORS
    opened = run(_remote_header(file) if has_header else _remote_size(file) for file in remote)
    for file in files:
        if file.path is not None:
            (header,) = kind.loader([file])
            opened.append((header, os.path.getsize(file.path)))
    return Checkpoint(
        kind.pretty_name,
        len(files),
        [header for header, _ in opened if isinstance(header, TensorFile)],
        sum(size for _, size in opened),
        len(remote),
    )


def _remote_size(file: HfHubFile) -> Flow[tuple[Mapping[str, Tensor] | None, int]]:
    _, size = yield from announced(file)
    return None, size


def _remote_header(file: HfHubFile) -> Flow[tuple[Mapping[str, Tensor] | None, int]]:
    """A file of the right size, of which all but the header is a hole, in place of the real one."""
    metadata, size = yield from announced(file)
    with tempfile.NamedTemporaryFile() as copy:
        first = min(size, _FIRST)
        if first:
            yield from receive(file, metadata.commit, copy.fileno(), 0, first)
        end = _end_of_header(copy, size)
        if end > first:
            yield from receive(file, metadata.commit, copy.fileno(), first, end)
        os.ftruncate(copy.fileno(), size)
        return SafeTensorsFile(copy.name, source=str(file)), size


def _end_of_header(copy: IO[bytes], size: int) -> int:
    """Nothing more is fetched for a length that makes no sense: reading the file refuses it."""
    length = int.from_bytes(os.pread(copy.fileno(), 8, 0), "little")
    return 8 + length if length <= min(MAX_HEADER, size - 8) else 0
