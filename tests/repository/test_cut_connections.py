"""Connections that are cut after each byte of an answer, in its header and in its body."""

from __future__ import annotations

import pytest
from hub_server import Fault

from curated_transformers.repository import HfHubRepository, NetworkError, transport

CONTENT = bytes(range(100, 140))
#: What is cut: the question about a file, a small file, a large one in its storage.
ANSWERS = {
    "metadata": ("HEAD", "hub:", "a.txt"),
    "small": ("GET", "hub:", "a.txt"),
    "large": ("GET", "storage:", "a.bin"),
    "large_metadata": ("HEAD", "hub:", "a.bin"),
    "redirect": ("GET", "hub:", "a.bin"),
}
SLOW = dict.fromkeys(("large_metadata", "redirect"), pytest.mark.slow)  # longer headers
EACH = [pytest.param(what, marks=SLOW.get(what, ())) for what in ANSWERS]
MANY = 100


@pytest.fixture
def read(hub):
    def read(name):
        """From a repository of this name, which begins with nothing in the cache."""
        if name not in hub.repos:
            hub.add(name, {"a.txt": CONTENT, "a.bin": CONTENT[::-1]}, large={"a.bin"})
        path = "a.bin" if name.startswith("large") else "a.txt"
        with HfHubRepository(name).file(path).open() as file:
            return file.read()

    return read


def answer_to(hub, read, method, role, name):
    """All bytes of the answer that is to be cut."""
    hub.fail(method, role, Fault(cut_answer=1 << 20))
    read(f"{name}-whole")
    return hub.requests(method, role)[-1].answer


def blobs(cache, name):
    return sorted((cache / f"models--{name}" / "blobs").glob("*"))


def right(path):
    return CONTENT[::-1] if path == "a.bin" else CONTENT


@pytest.mark.parametrize("what", EACH)
def test_a_download_survives_a_cut_at_any_byte(what, hub, read, cache):
    method, role, path = ANSWERS[what]
    name = "large" if path == "a.bin" else "small"
    whole = answer_to(hub, read, method, role, name)
    assert whole.startswith(b"HTTP/1.1 ")
    for cut in range(len(whole) + 1):
        hub.fail(method, role, Fault(cut_answer=cut))
        assert read(f"{name}-{cut}") == right(path), f"cut after byte {cut} of {whole!r}"
        (blob,) = blobs(cache, f"{name}-{cut}")
        assert blob.read_bytes() == right(path)


@pytest.mark.parametrize("what", EACH)
def test_nothing_wrong_stays_when_every_connection_is_cut(what, hub, read, cache, monkeypatch):
    monkeypatch.setattr(transport, "TRIES", 2)
    method, role, path = ANSWERS[what]
    name = "large" if path == "a.bin" else "small"
    whole = answer_to(hub, read, method, role, name)
    header = whole.index(b"\r\n\r\n") + 4
    for cut in range(len(whole)):
        where = f"cut after byte {cut} of {whole!r}"
        hub.fail(method, role, *[Fault(cut_answer=cut)] * MANY)
        try:
            content = read(f"{name}-{cut}")
        except NetworkError:
            for blob in blobs(cache, f"{name}-{cut}"):
                assert blob.name.endswith(".incomplete"), where
                assert right(path).startswith(blob.read_bytes()), where
        else:
            assert cut >= header, where  # bytes of the body that came before a cut are kept
            assert content == right(path), where
        hub.recover()
        assert read(f"{name}-{cut}") == right(path), where
