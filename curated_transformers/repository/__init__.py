"""Where models lie: a folder, the Hugging Face Hub with its local cache, any fsspec file system."""

from .errors import (
    AccessError,
    ChecksumError,
    DiskFullError,
    GatedRepositoryError,
    HubError,
    NetworkError,
    NotCachedError,
    RemoteFileNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    ServerError,
)
from .file import LocalFile, RepositoryFile
from .fsspec import FsspecArgs, FsspecFile, FsspecRepository
from .hf_hub import HfHubFile, HfHubRepository, fetch_files
from .repository import (
    LocalRepository,
    ModelRepository,
    Repository,
    TokenizerRepository,
    TransactionContext,
)

__all__ = [
    "AccessError",
    "ChecksumError",
    "DiskFullError",
    "FsspecArgs",
    "FsspecFile",
    "FsspecRepository",
    "GatedRepositoryError",
    "HfHubFile",
    "HfHubRepository",
    "HubError",
    "LocalFile",
    "LocalRepository",
    "ModelRepository",
    "NetworkError",
    "NotCachedError",
    "RemoteFileNotFoundError",
    "Repository",
    "RepositoryFile",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "ServerError",
    "TokenizerRepository",
    "TransactionContext",
    "fetch_files",
]
