"""The tensors of a checkpoint, without reading any: files that are here are mapped, and of those on
the Hub only the headers are fetched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from ..checkpoint import GGUFFile
from ..checkpoint.index import ModelCheckpointType, find_checkpoints
from ..checkpoint.safetensors import MAX_HEADER, SafeTensorsFile
from ..checkpoint.tensor_file import TensorFile
from ..repository import HfHubFile, Repository, RepositoryFile
from ..repository.beginning import announced, receive
from ..repository.transport import Flow, run

#: What is fetched at first; enough for the header of most files.
_FIRST = 1 << 16


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint, their bytes, and how many of them only gave their header."""

    kind: str
    files: list[TensorFile]
    size: int
    n_remote: int = 0


def gguf_checkpoint(file: GGUFFile) -> Checkpoint:
    """A GGUF file as a checkpoint."""
    return Checkpoint("GGUF", [file], os.path.getsize(file.path))


def read_headers(repo: Repository) -> Checkpoint:
    """The checkpoint of a repository.

    Raises as ``find_checkpoints`` and the files' formats do, and ``NotImplementedError`` for kinds
    that have no header.
    """
    files, kind = find_checkpoints(repo)
    if kind is not ModelCheckpointType.SAFE_TENSORS:
        raise NotImplementedError(f"{kind.pretty_name} checkpoints have no header that tells")
    remote = [file for file in files if isinstance(file, HfHubFile) and file.path is None]
    copies = dict(zip(map(id, remote), run(_remote_header(file) for file in remote), strict=True))
    opened = [copies[id(file)] if id(file) in copies else _local(file) for file in files]
    return Checkpoint(
        kind.pretty_name,
        [header for header, _ in opened],
        sum(size for _, size in opened),
        len(remote),
    )


def _local(file: RepositoryFile) -> tuple[TensorFile, int]:
    if file.path is None:
        raise NotImplementedError(f"{file} is not a file of this machine")
    return SafeTensorsFile(file.path), os.path.getsize(file.path)


def _remote_header(file: HfHubFile) -> Flow[tuple[TensorFile, int]]:
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


def all_tensors(files: Sequence[TensorFile]) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Name -> dtype in the file's words, shape, bytes."""
    return {
        name: (info.dtype, info.shape, info.end - info.begin)
        for file in files
        for name, info in file.infos.items()
    }
