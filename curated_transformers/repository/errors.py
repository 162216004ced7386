"""What can go wrong between here and the Hub. Each is also the built-in error that fits best."""

from __future__ import annotations

import errno


class HubError(OSError):
    """The Hub, or the way there, did not do what was asked."""

    def with_prefix(self, prefix: str) -> HubError:
        """The same error, whose text begins with ``prefix``."""
        error = type(self)(f"{prefix}{self}")
        error.errno = self.errno
        return error


class NotCachedError(HubError, FileNotFoundError):
    """A file is not in the local cache, and the network may not be used."""


class RepositoryNotFoundError(HubError, FileNotFoundError):
    """No such repository, or it is private and the token does not open it."""


class RevisionNotFoundError(HubError, FileNotFoundError):
    """The repository has no such branch, tag or commit."""


class RemoteFileNotFoundError(HubError, FileNotFoundError):
    """The repository has no such file in this revision."""

    #: The commit in which it is missing, if the Hub says so.
    commit: str | None = None


class AccessError(HubError, PermissionError):
    """The token is not valid, or does not allow this."""


class GatedRepositoryError(AccessError):
    """The repository's owner gives access on request; the text says where to ask."""


class NetworkError(HubError, ConnectionError):
    """The Hub cannot be reached, or the connection broke again and again."""


class ServerError(HubError):
    """The Hub answered that it cannot answer now, or something that makes no sense."""


class ChecksumError(HubError):
    """What was downloaded is not what the Hub announced."""


class DiskFullError(HubError):
    """There is no room for the file. What has been downloaded stays, and is continued later."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errno = errno.ENOSPC
