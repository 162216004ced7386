"""The first bytes of files on the Hub, for those who want a header and not the file."""

from __future__ import annotations

from . import environment
from .errors import ServerError
from .hf_hub import HfHubFile
from .hub_api import FileMetadata, answer_error, file_url, request_headers
from .transport import Flow, Request, send


def announced(file: HfHubFile) -> Flow[tuple[FileMetadata, int]]:
    """What the Hub announces about a file that is not cached, and its size. Raises a
    ``HubError``."""
    yield from file._resolve()
    metadata = file._metadata
    if metadata is None or metadata.size is None:
        raise ServerError(f"the Hub does not say how large {file} is")
    return metadata, metadata.size


def receive(file: HfHubFile, commit: str, copy: int, begin: int, end: int) -> Flow[None]:
    """Writes the bytes ``[begin, end)`` of a file at their place of the descriptor ``copy``.

    Raises a ``HubError``, also when the server sends something else.
    """
    name, path = file._repo.name, file._remote_path
    headers = request_headers(
        **{"Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
    )
    request = Request(
        "GET",
        file_url(name, commit, path),
        headers,
        output=(copy, begin, end),
        idle_timeout=environment.download_timeout(),
    )
    answer = yield from send(request)
    if not answer.is_success:
        raise answer_error(answer, name, commit, path)
    if answer.position != end:
        raise ServerError(
            f"{answer.where}: asked for the bytes from {begin} to {end}, the server's end at "
            f"{answer.position}"
        )
