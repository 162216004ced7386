"""Loading by name or through a file system, for all classes that load from a repository."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from .fsspec import FsspecRepository
from .hf_hub import HfHubRepository
from .repository import Repository

Self = TypeVar("Self", bound="LoadsItself")
Loaded = TypeVar("Loaded")


class LoadsItself:
    """Classes that make objects of themselves.

    ``dtype`` converts the weights; without it they keep the type that config.json names.
    """

    @classmethod
    def from_repo(
        cls: type[Self],
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads what is in a repository."""
        raise NotImplementedError

    @classmethod
    def from_fsspec(
        cls: type[Self],
        *,
        fs: Any,
        model_path: str,
        fsspec_args: Any = None,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads through an fsspec filesystem; otherwise as ``from_repo``."""
        return cls.from_repo(
            repo=FsspecRepository(fs, model_path, fsspec_args),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )

    @classmethod
    def from_hf_hub(
        cls: type[Self],
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Self:
        """Loads from the Hugging Face Hub; otherwise as ``from_repo``.

        ``revision`` is a branch, a tag or a commit.
        """
        return cls.from_repo(
            repo=HfHubRepository(name, revision=revision),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )


class LoadsOthers(Generic[Loaded]):
    """The same for classes that find the class of what they load. (Python's types have no way to
    say both at once.)"""

    @classmethod
    def from_repo(
        cls,
        *,
        repo: Repository,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Loaded:
        """Loads what is in a repository."""
        raise NotImplementedError

    @classmethod
    def from_fsspec(
        cls,
        *,
        fs: Any,
        model_path: str,
        fsspec_args: Any = None,
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Loaded:
        """Loads through an fsspec filesystem; otherwise as ``from_repo``."""
        return cls.from_repo(
            repo=FsspecRepository(fs, model_path, fsspec_args),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )

    @classmethod
    def from_hf_hub(
        cls,
        *,
        name: str,
        revision: str = "main",
        device: Any = None,
        dtype: Any = None,
        quantization_config: Any = None,
    ) -> Loaded:
        """Loads from the Hugging Face Hub; otherwise as ``from_repo``.

        ``revision`` is a branch, a tag or a commit.
        """
        return cls.from_repo(
            repo=HfHubRepository(name, revision=revision),
            device=device,
            dtype=dtype,
            quantization_config=quantization_config,
        )
