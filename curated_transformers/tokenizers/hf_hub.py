"""Loading tokenizers from a folder, a file system, a repository or the Hugging Face Hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from os import PathLike
from typing import Any, ClassVar, TypeVar

from ..repository.fsspec import FsspecRepository
from ..repository.hf_hub import HfHubRepository, fetch_files
from ..repository.repository import LocalRepository, Repository

Self = TypeVar("Self", bound="FromHF")


class FromHF(ABC):
    """Mixin of tokenizers that can be loaded from Hugging Face repositories."""

    #: The files that the tokenizer is made of.
    _REQUIRED_FILES: ClassVar[tuple[str, ...]] = ()
    #: Files that it reads when they exist.
    _OPTIONAL_FILES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads the tokenizer in a repository. ``FileNotFoundError`` when it holds none."""

    @classmethod
    def from_dir(cls: type[Self], path: str | PathLike[str]) -> Self:
        """Loads the tokenizer in a folder. ``FileNotFoundError`` when it holds none."""
        return cls.from_repo(LocalRepository(path))

    @classmethod
    def from_fsspec(cls: type[Self], *, fs: Any, model_path: str, fsspec_args: Any = None) -> Self:
        """Loads the tokenizer in a folder of an fsspec file system.

        ``fsspec_args`` is a ``FsspecArgs`` with arguments for the file system's calls. Raises
        ``FileNotFoundError`` when the folder holds no tokenizer.
        """
        return cls.from_repo(FsspecRepository(fs, model_path, fsspec_args))

    @classmethod
    def from_hf_hub(cls: type[Self], *, name: str, revision: str = "main") -> Self:
        """Loads the tokenizer of a repository on the Hugging Face Hub.

        ``revision`` is a branch, a tag or a commit. Raises ``FileNotFoundError`` when the
        repository holds no tokenizer of this kind, or cannot be reached and is not cached.
        """
        return cls.from_repo(HfHubRepository(name, revision=revision))

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Fetches the files of the tokenizer into the local cache.

        Raises ``FileNotFoundError`` as ``from_hf_hub`` does.
        """
        cls._fetch(HfHubRepository(name, revision=revision))

    @classmethod
    def _fetch(cls, repo: Repository) -> None:
        fetch(repo, cls._REQUIRED_FILES, cls._OPTIONAL_FILES)


def fetch(repo: Repository, required: Iterable[str], optional: Iterable[str]) -> None:
    """Brings files of the Hub into the cache; optional ones if they exist."""
    files = [repo.file(path) for path in required]
    files += [file for path in optional if (file := repo.file(path)).is_there()]
    fetch_files(files)
    for file in files:  # those of other repositories have to be there
        file.open().close()
