"""The Hub's protocol: URLs, the header with the token, what answers and errors mean."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from . import environment
from .errors import (
    AccessError,
    DiskFullError,
    GatedRepositoryError,
    HubError,
    RemoteFileNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    ServerError,
)
from .transport import Answer, Flow, Request, network_error, send

#: Seconds without a byte in an upload: storage thinks for a while when it has received a file.
UPLOAD_IDLE = 120.0

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: What may become the name of a file in the cache.
_ETAG = re.compile(r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]{0,199}")


@dataclass(frozen=True)
class FileMetadata:
    """What the Hub announces about a file."""

    commit: str
    etag: str
    size: int | None
    sha256: str | None


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which never changes."""
    return _COMMIT.fullmatch(revision) is not None


def file_url(name: str, revision: str, path: str) -> str:
    """Where a file of a repository is downloaded."""
    return (
        f"{environment.endpoint()}/{quote(name)}/resolve/{quote(revision, safe='')}/{quote(path)}"
    )


def api_url(name: str, action: str, revision: str) -> str:
    """Where the Hub takes requests about a model repository."""
    return f"{environment.endpoint()}/api/models/{quote(name)}/{action}/{quote(revision, safe='')}"


def request_headers(**more: str) -> dict[str, str]:
    """The headers of a request to the Hub: who we are, and the token."""
    from .. import __version__

    headers = {
        "User-Agent": f"curated-transformers/{__version__}; python/{sys.version.split()[0]}",
        **more,
    }
    token = environment.token()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def file_metadata(
    name: str, revision: str, path: str, *, most_tries: int = 0
) -> Flow[FileMetadata]:
    """What the Hub announces about a file. Raises a ``HubError``; the `RemoteFileNotFoundError`
    has the ``commit`` in which the file is missing, if the Hub says so."""
    headers = request_headers(**{"Accept-Encoding": "identity"})
    url = file_url(name, revision, path)
    request = Request("HEAD", url, headers, total_timeout=environment.metadata_timeout())
    answer = yield from send(request, is_final=_has_metadata, most_tries=most_tries)
    if not answer.is_success and not (answer.code == 0 and 300 <= answer.status < 400):
        raise answer_error(answer, name, revision, path)
    return parsed_metadata(answer)


def _has_metadata(redirect: Answer, leaves_host: bool) -> bool:
    # A renamed repository leads to its new name; to the storage leads an answer that says all.
    return leaves_host or "x-linked-etag" in redirect.headers


def parsed_metadata(answer: Answer) -> FileMetadata:
    """The metadata in the answer to a HEAD request. ``ServerError`` when they make no sense."""
    headers = answer.headers
    commit = headers.get("x-repo-commit", "")
    linked = _plain_etag(headers.get("x-linked-etag", ""))
    etag = linked or _plain_etag(headers.get("etag", ""))
    length = headers.get("x-linked-size")
    if length is None and answer.status < 300:
        length = headers.get("content-length")
    if not is_commit(commit) or not _ETAG.fullmatch(etag):
        raise ServerError(
            f"{answer.where}: the server does not answer as the Hub does: it announces the commit "
            f"`{commit[:80]}` and the ETag `{etag[:80]}`"
        )
    if length is not None and not (length.isascii() and length.isdecimal()):
        raise ServerError(f"{answer.where}: the server announces the size `{length[:80]}`")
    return FileMetadata(
        commit=commit,
        etag=etag,
        size=None if length is None else int(length),
        sha256=linked if _SHA256.fullmatch(linked) else None,
    )


@dataclass(frozen=True)
class Target:
    """A repository that is written to."""

    name: str
    revision: str

    def post(self, url: str, body: dict[str, Any], headers: Mapping[str, str]) -> Flow[Answer]:
        """Sends JSON, with the token if it goes to the Hub itself. Raises a ``HubError``."""
        full = request_headers(**headers)
        if not url.startswith(f"{environment.endpoint()}/"):
            full.pop("Authorization", None)
        data = json.dumps(body).encode()
        return (yield from self.ask(Request("POST", url, full, data, idle_timeout=UPLOAD_IDLE)))

    def ask(self, request: Request) -> Flow[Answer]:
        """The answer to a request, which is a success. Raises a ``HubError``."""
        answer = yield from send(request)
        if not answer.is_success:
            raise answer_error(answer, self.name, self.revision)
        return answer


def listed_objects(answer: Answer, key: str) -> list[dict[str, Any]]:
    """The list of objects in an answer. ``ServerError`` when there is none."""
    value = parsed_json(answer).get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ServerError(f"{answer.where}: the server's answer has no list `{key}`")
    return value


def parsed_json(answer: Answer) -> dict[str, Any]:
    """The JSON object in an answer. ``ServerError`` when there is none."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServerError(f"{answer.where}: the server's answer is not a JSON object")
    return value


def answer_error(answer: Answer, name: str, revision: str, path: str | None = None) -> HubError:
    """The error that an answer which is no success stands for."""
    if answer.refusal == "file":
        return file_error(answer)
    if answer.refusal:
        return ServerError(f"{answer.where}: {answer.message}")
    if answer.code != 0:
        return network_error(answer)
    reason = _reason(answer)
    error = _ERRORS.get(answer.headers.get("x-error-code", ""), _error_by_status)
    return error(answer, name, revision, path, reason)


def file_error(answer: Answer) -> HubError:
    """The error of our own file, which could not be written or read."""
    import errno

    if answer.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"the disk is full: {answer.message}")
    error = HubError(answer.message)
    error.errno = answer.errno
    return error


def _no_repository(
    answer: Answer, name: str, revision: str, path: str | None, reason: str
) -> HubError:
    hint = "if it is private, set HF_TOKEN to a token that may read it"
    if environment.token() is not None:
        hint = "or the token does not allow to see it"
    return RepositoryNotFoundError(
        f"{environment.endpoint()} has no repository `{name}`; {hint}{reason}"
    )


def _gated(answer: Answer, name: str, revision: str, path: str | None, reason: str) -> HubError:
    return GatedRepositoryError(
        f"`{name}` is gated; ask for access at {environment.endpoint()}/{name}, and set HF_TOKEN"
        f"{reason}"
    )


def _no_revision(
    answer: Answer, name: str, revision: str, path: str | None, reason: str
) -> HubError:
    return RevisionNotFoundError(f"`{name}` has no revision `{revision}`{reason}")


def _no_file(answer: Answer, name: str, revision: str, path: str | None, reason: str) -> HubError:
    error = RemoteFileNotFoundError(f"`{name}` has no file `{path}` (revision: {revision}){reason}")
    commit = answer.headers.get("x-repo-commit", "")
    error.commit = commit if is_commit(commit) else None
    return error


def _error_by_status(
    answer: Answer, name: str, revision: str, path: str | None, reason: str
) -> HubError:
    if answer.status == 401 and "invalid" not in reason.lower():
        return _no_repository(answer, name, revision, path, reason)
    if answer.status in (401, 403):
        return AccessError(f"the Hub denies access to `{name}`; is HF_TOKEN right?{reason}")
    if answer.status == 404 and path is not None:
        return _no_file(answer, name, revision, path, reason)
    again = answer.headers.get("retry-after")
    wait = f"; try again after `{again[:40]}`" if again else ""
    return ServerError(f"{answer.where}: the server answered {answer.status}{wait}{reason}")


_ERRORS = {
    "RepoNotFound": _no_repository,
    "GatedRepo": _gated,
    "RevisionNotFound": _no_revision,
    "EntryNotFound": _no_file,
}


def _reason(answer: Answer) -> str:
    """The Hub's own words, printable, not too long, and without the token if it repeats that."""
    text = answer.headers.get("x-error-message", "")
    if not text and answer.body:
        try:
            text = str(parsed_json(answer).get("error", ""))
        except ServerError:
            text = ""
    token = environment.token()
    if token is not None:
        text = text.replace(token, "[token]")
    text = "".join(c if c.isprintable() else " " for c in text[:300])
    return f" (the Hub: {text})" if text else ""


def _plain_etag(value: str) -> str:
    return value.removeprefix("W/").strip('"')
