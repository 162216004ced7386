"""What the formats have in common: a mapped file whose header says where each tensor lies."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike

from .._core import MappedFile, Tensor


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a file: its dtype in the file's own words, its shape, outermost dimension first,
    and the bytes ``[begin, end)`` of the file that hold it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class MappedTensors(Mapping[str, Tensor]):
    """Tensors that lie in mapped files."""

    @abstractmethod
    def forget_pages(self) -> None:
        """Gives back the memory of what was read and copied; views stay valid."""


class TensorFile(MappedTensors):
    """The tensors of a file by name, each made when it is asked for, as a view of the mapped file.

    ``source`` is how errors name the file. Raises ``ValueError`` for a file that breaks the rules
    of its format, ``OSError`` for one that cannot be mapped. Asking for a tensor of an unsupported
    dtype raises ``NotImplementedError``, so that the others can be used.
    """

    #: The format's name, and its dtypes that the core knows.
    format: str
    supported: Mapping[str, str]

    infos: dict[str, TensorInfo]

    def __init__(self, path: str | PathLike[str], *, source: str | None = None) -> None:
        self.path = source if source is not None else os.fspath(path)
        self._file = MappedFile(path)
        self.infos = {}

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        dtype = self.supported.get(info.dtype)
        if dtype is None:
            raise NotImplementedError(
                f"{self.path}: tensor `{name}` has the unsupported dtype {info.dtype}; supported: "
                + ", ".join(sorted(self.supported))
            )
        return self._file.tensor(dtype, info.shape, info.begin)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def __contains__(self, name: object) -> bool:
        return name in self.infos

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {len(self)} tensors)"

    def forget_pages(self) -> None:
        self._file.forget_pages()

    def error(self, what: str) -> ValueError:
        """The error that says why the file is refused."""
        return ValueError(f"{self.path}: not a valid {self.format} file: {what}")

    def by_offset(self) -> Iterable[tuple[str, TensorInfo]]:
        """Names and infos in the order in which the tensors lie in the file."""
        return sorted(self.infos.items(), key=lambda item: (item[1].begin, item[1].end))


def forget_pages(checkpoint: Mapping[str, Tensor]) -> None:
    """Gives back the memory of what was read and copied, where it can be read again."""
    if isinstance(checkpoint, MappedTensors):
        checkpoint.forget_pages()
