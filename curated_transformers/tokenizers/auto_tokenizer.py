"""The tokenizer that fits a repository, found by the files that it holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..repository.fsspec import FsspecRepository
from ..repository.hf_hub import HfHubRepository
from ..repository.repository import LocalRepository, Repository, TokenizerRepository
from .base import TokenizerBase
from .hf_hub import FromHF
from .legacy import (
    BERTTokenizer,
    CamemBERTTokenizer,
    LlamaTokenizer,
    RoBERTaTokenizer,
    XLMRTokenizer,
)
from .legacy.bert_tokenizer import MPNetTokenizer
from .tokenizer import Tokenizer

# By `tokenizer_class` of tokenizer_config.json, without "Fast".
_BY_CLASS: dict[str, type[FromHF]] = {
    "BertTokenizer": BERTTokenizer,
    "CamembertTokenizer": CamemBERTTokenizer,
    "DistilBertTokenizer": BERTTokenizer,
    "ElectraTokenizer": BERTTokenizer,
    "LlamaTokenizer": LlamaTokenizer,
    "MPNetTokenizer": MPNetTokenizer,
    "RobertaTokenizer": RoBERTaTokenizer,
    "XLMRobertaTokenizer": XLMRTokenizer,
}

# By `model_type` of config.json.
_BY_MODEL: dict[str, type[FromHF]] = {
    "bert": BERTTokenizer,
    "camembert": CamemBERTTokenizer,
    "distilbert": BERTTokenizer,
    "electra": BERTTokenizer,
    "llama": LlamaTokenizer,
    "mpnet": MPNetTokenizer,
    "roberta": RoBERTaTokenizer,
    "xlm-roberta": XLMRTokenizer,
}


class AutoTokenizer:
    """Loads tokenizers of any supported kind.

    A repository with `tokenizer.json` has a ``Tokenizer``. Otherwise `tokenizer_class` of
    `tokenizer_config.json` tells the kind, else `model_type` of `config.json`.
    """

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

        Raises ``ValueError`` when nothing tells its kind, and what the ``from_repo`` of its kind
        does.
        """
        tokenizer = _kind(repo).from_repo(repo)
        assert isinstance(tokenizer, TokenizerBase)
        return tokenizer

    @classmethod
    def from_fsspec(cls, *, fs: Any, model_path: str, fsspec_args: Any = None) -> TokenizerBase:
        """Loads the tokenizer in a folder of an fsspec file system.

        ``fsspec_args`` is a ``FsspecArgs`` with arguments for the file system's calls. Raises as
        ``from_repo`` does.
        """
        return cls.from_repo(FsspecRepository(fs, model_path, fsspec_args))

    @classmethod
    def from_hf_hub(cls, *, name: str, revision: str = "main") -> TokenizerBase:
        """Loads the tokenizer of a repository on the Hugging Face Hub.

        ``revision`` is a branch, a tag or a commit. Raises as ``from_repo`` does, also when the
        repository cannot be reached and is not cached.
        """
        return cls.from_repo(HfHubRepository(name, revision=revision))

    @classmethod
    def from_hf_hub_to_cache(cls, *, name: str, revision: str = "main") -> None:
        """Fetches the files of the tokenizer into the local cache. Raises as ``from_hf_hub``."""
        repo = HfHubRepository(name, revision=revision)
        _kind(repo)._fetch(repo)


def _kind(repo: Repository) -> type[FromHF]:
    files = TokenizerRepository(repo)
    if files.tokenizer_json().is_there():
        return Tokenizer
    kind = _by_class(files)
    return _by_model(files) if kind is None else kind


def _by_class(files: TokenizerRepository) -> type[FromHF] | None:
    try:
        name = files.tokenizer_config().get("tokenizer_class")
    except (OSError, ValueError):  # the repository does not say it here
        return None
    return _BY_CLASS.get(name.removesuffix("Fast")) if isinstance(name, str) else None


def _by_model(files: TokenizerRepository) -> type[FromHF]:
    message = (
        f"Cannot infer tokenizer for repo: {files.pretty_path()}: neither tokenizer.json nor a "
        "supported tokenizer_class in tokenizer_config.json was found, "
    )
    try:
        model_type = files.model_type()
    except (OSError, ValueError) as error:
        raise ValueError(f"{message}and no model_type: {error}") from error
    if model_type not in _BY_MODEL:
        raise ValueError(f"{message}and no tokenizer is known for the model_type `{model_type}`")
    return _BY_MODEL[model_type]
