"""Loading tokenizers from a folder, a repository or the Hugging Face Hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import TypeVar

from ..repository.hf_hub import HfHubRepository
from ..repository.repository import LocalRepository, Repository

Self = TypeVar("Self", bound="FromHF")

#: What a tokenizer may be made of; the first must exist.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class FromHF(ABC):
    """Mixin of tokenizers that can be loaded from Hugging Face repositories."""

    @classmethod
    @abstractmethod
    def from_repo(cls: type[Self], repo: Repository) -> Self:
        """Loads the tokenizer in a repository. ``FileNotFoundError`` when it holds none."""

    @classmethod
    def from_dir(cls: type[Self], path: str | PathLike[str]) -> Self:
        """Loads the tokenizer in a folder. ``FileNotFoundError`` when it holds none."""
        return cls.from_repo(LocalRepository(path))

    @classmethod
    def from_hf_hub(cls: type[Self], *, name: str, revision: str = "main") -> Self:
        """Loads the tokenizer of a repository on the Hugging Face Hub, from the local cache.

        ``revision`` is a branch, a tag or a commit. Raises ``FileNotFoundError`` when it is not
        cached.
        """
        return cls.from_repo(HfHubRepository(name, revision=revision))

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds the tokenizer.

        Raises ``FileNotFoundError`` when it does not, as nothing is downloaded yet.
        """
        ensure_cached(HfHubRepository(name, revision=revision))


def ensure_cached(repo: Repository) -> None:
    """Opens the file that a tokenizer needs, so that its error is seen, and looks for the rest."""
    repo.file(FILES[0]).open().close()
    for optional in FILES[1:]:
        repo.file(optional).exists()
