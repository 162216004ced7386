"""Where models lie: a folder, or the local cache of the Hugging Face Hub."""

from .file import LocalFile, RepositoryFile
from .hf_hub import HfHubFile, HfHubRepository
from .hub_cache import NotCachedError, cached_snapshot
from .repository import (
    LocalRepository,
    ModelRepository,
    Repository,
    TokenizerRepository,
    TransactionContext,
)

__all__ = [
    "HfHubFile",
    "HfHubRepository",
    "LocalFile",
    "LocalRepository",
    "ModelRepository",
    "NotCachedError",
    "Repository",
    "RepositoryFile",
    "TokenizerRepository",
    "TransactionContext",
    "cached_snapshot",
]
