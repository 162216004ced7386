"""Each way to fail is an error class of its own, with the Hub's reason."""

from __future__ import annotations

import errno
import os
import warnings

import pytest
from hub_server import COMMIT, Fault

from curated_transformers.repository import (
    AccessError,
    DiskFullError,
    GatedRepositoryError,
    HfHubRepository,
    HubError,
    NetworkError,
    NotCachedError,
    RemoteFileNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    ServerError,
    fetch_files,
    transport,
)

NAME = "org/model"


def failure(name=NAME, path="config.json", revision="main"):
    """The error of opening a file; fetching it fails alike."""
    with pytest.raises(HubError) as by_open:
        HfHubRepository(name, revision=revision).file(path).open()
    return by_open.value


def test_no_such_repository(hub):
    error = failure("org/none")
    assert type(error) is RepositoryNotFoundError
    assert isinstance(error, FileNotFoundError)
    assert str(error).startswith("File not found: org/none/config.json (revision: main): ")
    assert "has no repository `org/none`" in str(error)
    assert "set HF_TOKEN" in str(error)
    assert "Repository not found" in str(error)  # the Hub's reason


def test_a_private_repository_needs_its_token(hub, monkeypatch):
    hub.add(NAME, {"config.json": b"{}"}).private = True
    assert type(failure()) is RepositoryNotFoundError
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "or the token does not allow to see it" in str(failure())
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert HfHubRepository(NAME).json_file("config.json") == {}


def test_a_gated_repository_says_where_to_ask(hub):
    hub.add(NAME, {"config.json": b"{}"}).gated = True
    error = failure()
    assert type(error) is GatedRepositoryError
    assert isinstance(error, PermissionError)
    assert f"ask for access at {hub.url}/{NAME}" in str(error)
    assert "Access to model org/model is restricted." in str(error)


def test_no_such_revision(hub):
    hub.add(NAME, {"config.json": b"{}"})
    error = failure(revision="v9")
    assert type(error) is RevisionNotFoundError
    assert isinstance(error, FileNotFoundError)
    assert "has no revision `v9`" in str(error)
    assert "Invalid rev id: v9" in str(error)


def test_no_such_file(hub):
    hub.add(NAME, {"config.json": b"{}"})
    error = failure(path="none.json")
    assert type(error) is RemoteFileNotFoundError
    assert isinstance(error, FileNotFoundError)
    assert "File not found: org/model/none.json (revision: main)" in str(error)
    with pytest.raises(RemoteFileNotFoundError, match=r"none\.json"):
        fetch_files([HfHubRepository(NAME).file("none.json")])


def test_a_plain_404_is_a_missing_file(hub):
    hub.add(NAME, {"config.json": b"{}"})
    hub.fail("HEAD", "", Fault(status=404))
    assert type(failure()) is RemoteFileNotFoundError


def test_no_network(cache):
    error = failure()
    assert type(error) is NetworkError
    assert isinstance(error, ConnectionError)
    assert "File could not be opened" in str(error)
    assert "cannot reach http://127.0.0.1:1/org/model/resolve/main/config.json" in str(error)
    assert "is not in the local cache" in str(error)


def test_a_name_that_nobody_knows_is_no_network(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")  # RFC 6761: never resolves
    assert type(failure()) is NetworkError


def test_a_hub_that_does_not_answer_in_time_is_no_network(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.2")
    import threading

    never = threading.Barrier(2)
    hub.add(NAME, {"config.json": b"{}"})
    hub.fail("HEAD", "", Fault(barrier=never))
    assert type(failure()) is NetworkError
    never.abort()
    assert len(hub.seen) == 1


def test_offline_says_so(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.add(NAME, {"config.json": b"{}"})
    error = failure()
    assert type(error) is NotCachedError
    assert isinstance(error, FileNotFoundError)
    assert "File not found" in str(error)
    assert "is not in the local cache" in str(error)
    assert "HF_HUB_OFFLINE is set" in str(error)
    assert hub.seen == []


def test_an_invalid_token_is_named_as_the_reason(hub):
    hub.add(NAME, {"config.json": b"{}"})
    reason = "Invalid credentials in Authorization header"
    hub.fail("HEAD", "", Fault(status=401, headers={"X-Error-Message": reason}))
    error = failure()
    assert type(error) is AccessError
    assert isinstance(error, PermissionError)
    assert reason in str(error)


def test_a_full_disk(hub, cache):
    """A device that is always full stands where the download is written."""
    hub.add(NAME, {"model.bin": b"x" * 1000}, large={"model.bin"})
    repo = HfHubRepository(NAME)
    etag = "b3e3bdf8ad2d07b4b5ff7f8d9e1e1a5b"
    hub.fail("HEAD", "", Fault(status=302, headers=announced(etag, 1000, hub)))
    blobs = cache / "models--org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{etag}.incomplete").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match=f"{blobs.parent}: the disk is full") as refusal:
        repo.file("model.bin").open()
    assert refusal.value.errno == errno.ENOSPC


def announced(etag, size, hub):
    return {
        "X-Repo-Commit": COMMIT,
        "X-Linked-Etag": etag,
        "X-Linked-Size": str(size),
        "Location": f"{hub.storage_url}/{etag}",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_a_clear_error(hub, cache):
    hub.add(NAME, {"config.json": b"{}"})
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.raises(OSError, match=r"File could not be opened.*Permission denied"):
        HfHubRepository(NAME).file("config.json").open()


def test_a_cache_whose_place_is_taken_is_a_clear_error(hub, cache):
    hub.add(NAME, {"config.json": b"{}"})
    cache.write_text("a file")
    with pytest.raises(OSError, match=r"File could not be opened: org/model/config\.json"):
        HfHubRepository(NAME).file("config.json").open()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": "main"},
        {"X-Repo-Commit": "../" * 13 + "x"},
        {"ETag": ""},
        {"ETag": '"../../x"'},
        {"ETag": '".."'},
        {"ETag": f'"{"a" * 300}"'},
        {"Content-Length": "0x10"},
        {"X-Linked-Size": "-1"},
        {"X-Linked-Size": "٣"},
    ],
    ids=str,
)
def test_metadata_that_make_no_sense_are_refused(headers, hub, cache):
    hub.add(NAME, {"config.json": b"{}"})
    headers = {k: v.encode().decode("latin-1") for k, v in headers.items()}
    hub.fail("HEAD", "", *[Fault(headers=headers)] * 10)
    assert type(failure()) in (ServerError, NetworkError)
    assert not list(cache.rglob("*.json"))


def test_exists_never_raises(hub, monkeypatch):
    repo = hub.add(NAME, {"config.json": b"{}"})
    assert not HfHubRepository("org/none").file("config.json").exists()
    assert not HfHubRepository(NAME, revision="v9").file("config.json").exists()
    repo.gated = True
    with pytest.warns(UserWarning, match="Cannot tell whether org/model/config.json .* gated"):
        assert not HfHubRepository(NAME).file("config.json").exists()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.warns(UserWarning, match="Cannot tell whether .* cannot reach"):
        assert not HfHubRepository(NAME).file("config.json").exists()
    monkeypatch.setenv("HF_TOKEN", "not a token")
    with pytest.warns(UserWarning, match="Cannot tell whether .* HF_TOKEN"):
        assert not HfHubRepository(NAME).file("config.json").exists()


def test_a_hub_that_cannot_say_is_no_missing_file(hub):
    repo = hub.add(NAME, {"config.json": b"{}"})
    assert not HfHubRepository("org/none").file("config.json").is_there()
    assert HfHubRepository(NAME).file("config.json").is_there()
    assert not HfHubRepository(NAME).file("other.json").is_there()
    hub.fail("HEAD", "other", *[Fault(status=503)] * transport.TRIES)
    with pytest.raises(ServerError, match="503"):
        HfHubRepository(NAME).file("other.bin").is_there()
    repo.gated = True
    with pytest.raises(GatedRepositoryError):
        HfHubRepository(NAME).file("config.json").is_there()


def test_the_cache_says_what_there_is_when_the_hub_never_answers(hub, monkeypatch):
    hub.add(NAME, {"config.json": b"{}"})
    repo = HfHubRepository(NAME)
    repo.file("config.json").open().close()
    assert not repo.file("absent.json").is_there()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(NetworkError):  # here the Hub has answered
        repo.file("other.json").open()
    with pytest.raises(NetworkError):
        repo.file("other.json").is_there()
    repo = HfHubRepository(NAME)
    with pytest.warns(UserWarning, match="Couldn't reach Hugging Face Hub"):
        assert repo.file("config.json").is_there()
    with pytest.warns(UserWarning, match=r"Cannot tell whether .*other\.json"):
        assert not repo.file("other.json").is_there()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not repo.file("absent.json").is_there()  # the Hub said so earlier
    with pytest.raises(NetworkError):  # nothing is cached
        HfHubRepository("org/new").file("config.json").is_there()


@pytest.mark.parametrize("mode", ["a", "r+", "w+b", "x", "", "rw"])
def test_other_modes_are_unsupported(mode, hub):
    hub.add(NAME, {"config.json": b"{}"})
    with pytest.raises(OSError, match=r"File could not be opened: org/model/config\.json") as error:
        HfHubRepository(NAME).file("config.json").open(mode)
    assert "Unsupported mode" in str(error.value.__cause__)
    assert hub.seen == []
