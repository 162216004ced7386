"""The tokenizer that fits a repository, found by the files that it holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..repository.hf_hub import HfHubRepository
from ..repository.repository import LocalRepository, Repository, TokenizerRepository
from .base import TokenizerBase
from .hf_hub import ensure_cached
from .tokenizer import Tokenizer

# Tokenizers with files of their own, by `tokenizer_class` without "Fast", and by `model_type`.
_LEGACY_CLASSES = (
    "BertTokenizer",
    "CamembertTokenizer",
    "ElectraTokenizer",
    "LlamaTokenizer",
    "RobertaTokenizer",
    "XLMRobertaTokenizer",
)
_LEGACY_MODELS = ("bert", "camembert", "electra", "llama", "roberta", "xlm-roberta")


class AutoTokenizer:
    """Loads tokenizers of any supported kind."""

    @classmethod
    def from_path(cls, path: str | PathLike[str]) -> TokenizerBase:
        """Loads the tokenizer in a folder, or the one inside a GGUF file.

        Raises ``FileNotFoundError``, ``ValueError`` or ``NotImplementedError`` as ``from_repo`` and
        ``Tokenizer.from_path`` do.
        """
        if Path(path).is_dir():
            return cls.from_repo(LocalRepository(path))
        return Tokenizer.from_path(path)

    @classmethod
    def from_repo(cls, repo: Repository) -> TokenizerBase:
        """Loads the tokenizer in a repository.

        Raises ``ValueError`` when nothing tells its kind, ``NotImplementedError`` for a repository
        of a known kind that holds no ``tokenizer.json``.
        """
        files = TokenizerRepository(repo)
        if files.tokenizer_json().exists():
            return Tokenizer.from_repo(repo)
        raise _no_tokenizer(files)

    @classmethod
    def from_hf_hub(cls, *, name: str, revision: str = "main") -> TokenizerBase:
        """Loads the tokenizer of a repository on the Hugging Face Hub, from the local cache.

        ``revision`` is a branch, a tag or a commit. Raises ``FileNotFoundError`` when it is not
        cached.
        """
        ensure_cached(repo := HfHubRepository(name, revision=revision))
        return cls.from_repo(repo)

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Makes sure that the local cache holds the tokenizer.

        Raises ``FileNotFoundError`` when it does not, as nothing is downloaded yet.
        """
        ensure_cached(HfHubRepository(name, revision=revision))


def _no_tokenizer(files: TokenizerRepository) -> Exception:
    where = files.pretty_path()
    kind = _declared_kind(files)
    if kind is None:
        return ValueError(f"Cannot infer tokenizer for repo: {where}")
    return NotImplementedError(
        f"{where} has no tokenizer.json, and the files of `{kind}` cannot be read yet; "
        "convert the tokenizer with transformers' `save_pretrained` first"
    )


def _declared_kind(files: TokenizerRepository) -> str | None:
    # Every error while reading these means that the repository does not say.
    try:
        name = str(files.tokenizer_config().get("tokenizer_class")).removesuffix("Fast")
        if name in _LEGACY_CLASSES:
            return name
    except OSError:
        pass
    try:
        kind = files.model_type()
    except OSError:
        return None
    return kind if kind in _LEGACY_MODELS else None
