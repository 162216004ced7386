"""What is written to the Hub: all files of a transaction as one commit, or nothing."""

from __future__ import annotations

import base64
import gc
import hashlib
import json

import pytest
from hub_server import COMMIT, Fault

from curated_transformers.repository import (
    AccessError,
    HfHubRepository,
    HubError,
    NetworkError,
    RevisionNotFoundError,
    ServerError,
)

NAME = "org/model"
BINARY = b"\0\1\2\3" * 50_000


@pytest.fixture
def remote(hub, monkeypatch):
    """What the Hub holds of org/model, to which the token may write."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub.add(NAME, {"config.json": b"{}"})


@pytest.fixture
def repo(remote):
    return HfHubRepository(NAME)


def test_a_transaction_is_one_commit(hub, remote, repo):
    with repo.transaction() as transaction:
        assert transaction.repo is repo
        with transaction.open("config.json", "w", encoding="utf-8") as file:
            json.dump({"a": "é"}, file, ensure_ascii=False)
        with transaction.open("sub/model.bin", "wb") as file:
            file.write(BINARY)
        assert remote.files == {"config.json": b"{}"}
    assert remote.files == {"config.json": '{"a": "é"}'.encode(), "sub/model.bin": BINARY}
    (commit,) = remote.commits
    oid = hashlib.sha256(BINARY).hexdigest()
    large = {"path": "sub/model.bin", "algo": "sha256", "oid": oid, "size": len(BINARY)}
    assert [line["key"] for line in commit] == ["header", "file", "lfsFile"]
    assert commit[0]["value"]["summary"] == "Upload 2 files"
    assert commit[2]["value"] == large


def test_what_was_uploaded_can_be_read_back(repo):
    assert repo.json_file("config.json") == {}
    with repo.transaction() as transaction:
        transaction.open("config.json", "wb").write(b'{"new": 1}')  # closed by the transaction
    assert repo.json_file("config.json") == {"new": 1}


def test_an_exception_uploads_nothing(hub, remote, repo):
    with pytest.raises(RuntimeError), repo.transaction() as transaction:  # noqa: PT012
        with transaction.open("a.txt", "w") as file:
            file.write("a")
        raise RuntimeError
    assert hub.seen == []


def test_an_empty_transaction_is_no_commit(hub, repo):
    with repo.transaction():
        pass
    assert hub.seen == []


@pytest.mark.parametrize("mode", ["r", "rb", "a", "r+", "w+", "x"])
def test_transactions_only_write(mode, repo):
    with repo.transaction() as transaction:
        text = f"File open mode '{mode}' is not supported inside a transaction"
        with pytest.raises(OSError, match=text.replace("+", r"\+")):
            transaction.open("a.txt", mode)


def test_a_path_is_written_once(remote, repo):
    with repo.transaction() as transaction:
        transaction.open("a.txt", "w").close()
        with pytest.raises(OSError, match=r"Path 'a\.txt' has already been opened"):
            transaction.open("a.txt", "w")
    assert remote.files["a.txt"] == b""


@pytest.mark.parametrize(("mode", "content"), [("w", "text é"), ("wt", "text é"), ("wb", BINARY)])
def test_a_file_that_is_written_is_uploaded_when_it_is_closed(mode, content, remote, repo):
    encoding = None if mode == "wb" else "utf-8"
    with repo.file("new").open(mode, encoding=encoding) as file:
        file.write(content)
        assert "new" not in remote.files
    assert remote.files["new"] == (content if mode == "wb" else content.encode())
    file.close()
    assert len(remote.commits) == 1
    assert remote.commits[0][0]["value"]["summary"] == "Upload new"


def test_closing_without_a_with_block_uploads_too(remote, repo):
    file = repo.file("new").open("w")
    print("line", file=file)
    file.close()
    assert remote.files["new"] == b"line\n"


def test_a_file_whose_block_raises_is_not_uploaded(hub, repo):
    with pytest.raises(RuntimeError), repo.file("new").open("w") as file:  # noqa: PT012
        file.write("text")
        raise RuntimeError
    assert file.closed
    assert hub.seen == []


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_file_that_is_forgotten_is_not_uploaded(mode, hub, repo):
    file = repo.file("new").open(mode)
    file.write("text" if mode == "w" else b"text")
    with pytest.warns(ResourceWarning, match="not closed, and is not uploaded"):
        file = gc.collect()
    assert hub.seen == []


def test_staged_files_do_not_stay(repo, hub, tmp_path, monkeypatch):
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with repo.file("new").open("w") as file:
        file.write("text")
    with pytest.raises(RuntimeError), repo.file("new").open("w"):
        raise RuntimeError
    hub.fail("POST", "/commit/", Fault(status=500))
    with pytest.raises(HubError), repo.transaction() as transaction:
        transaction.open("new", "w").close()
    assert list(folder.iterdir()) == []


def test_large_content_that_the_hub_has_is_not_sent_again(hub, repo):
    hub.stored[hashlib.sha256(BINARY).hexdigest()] = BINARY
    with repo.file("model.bin").open("wb") as file:
        file.write(BINARY)
    assert hub.requests("PUT") == []
    assert repo.file("model.bin").exists()


def test_large_content_goes_in_parts_when_the_hub_says_so(hub, remote, repo):
    hub.part_size = 64 << 10
    with repo.file("model.bin").open("wb") as file:
        file.write(BINARY)
    assert len(hub.requests("PUT")) == 4
    assert remote.files["model.bin"] == BINARY
    assert len(hub.requests("POST", "/verify")) == 1


def test_the_token_is_not_sent_to_the_storage(hub, repo):
    hub.part_size = 64 << 10
    with repo.file("model.bin").open("wb") as file:
        file.write(BINARY)
    storage = [seen for seen in hub.seen if seen.role == "storage"]
    assert len(storage) == 5  # four parts, and that they are all
    assert all("authorization" not in seen.headers for seen in storage)
    assert all("authorization" in seen.headers for seen in hub.seen if seen.role == "hub")


def test_uploads_are_tried_again(hub, remote, repo):
    hub.fail("PUT", "", Fault(status=500), Fault(drop=True))
    hub.fail("POST", "/preupload/", Fault(status=429))
    hub.fail("POST", "/batch", Fault(status=503))
    with repo.file("model.bin").open("wb") as file:
        file.write(BINARY)
    assert remote.files["model.bin"] == BINARY


def test_a_commit_is_not_tried_again(hub, remote, repo):
    """It may have been made although its answer was lost."""
    hub.fail("POST", "/commit/", Fault(drop=True))
    with pytest.raises(NetworkError), repo.file("new").open("w") as file:
        file.write("text")
    assert len(hub.requests("POST", "/commit/")) == 1


def test_a_token_that_may_not_write_is_named(hub, repo, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with (
        pytest.raises(AccessError, match="not the required permissions"),
        repo.file("new").open("w") as file,
    ):
        file.write("text")


def test_uploads_to_branches(hub, remote):
    remote.revisions["feature/x"] = COMMIT
    with HfHubRepository(NAME, revision="feature/x").file("new").open("w") as file:
        file.write("text")
    assert all("feature%2Fx" in seen.path for seen in hub.requests("POST", "/api/"))
    hub.fail("POST", "", Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}))
    with (
        pytest.raises(RevisionNotFoundError),
        HfHubRepository(NAME, revision="v9").file("new").open("w"),
    ):
        pass


def test_offline_uploads_nothing(hub, repo, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"), repo.file("new").open("w"):
        pass
    assert hub.seen == []


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("/preupload/", b"[]"),
        ("/preupload/", b'{"files": []}'),
        ("/preupload/", b'{"files": [{"path": "model.bin", "uploadMode": "x"}]}'),
        ("/batch", b"no JSON"),
        ("/batch", b'{"objects": [{"oid": "other"}]}'),
        ("/batch", b'{"objects": [{"oid": "x", "error": {"message": "no room"}}]}'),
        ("/batch", b'{"objects": [3]}'),
        ("/commit/", b""),
    ],
)
def test_answers_that_make_no_sense_are_refused(step, body, hub, repo):
    hub.fail("POST", step, Fault(body=body, headers={"Content-Length": str(len(body))}))
    with pytest.raises(ServerError), repo.file("model.bin").open("wb") as file:
        file.write(BINARY)


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"href": 3},
        {"href": "file:///etc/passwd"},
        {"href": "http://127.0.0.1:1/", "header": {"chunk_size": "x"}},
        {"href": "http://127.0.0.1:1/", "header": {"chunk_size": "0", "1": "http://x"}},
        {"href": "http://127.0.0.1:1/", "header": {"chunk_size": "10", "00001": "ftp://x"}},
        {"href": "http://127.0.0.1:1/", "header": {"chunk_size": "10"}},
        {"href": "http://127.0.0.1:1/", "header": {"X-A": "b\r\nX-C: d"}},
        {"href": "http://127.0.0.1:1/", "header": ["x"]},
    ],
    ids=str,
)
def test_places_to_store_that_make_no_sense_are_refused(action, hub, repo):
    oid = hashlib.sha256(BINARY).hexdigest()
    answer = {"objects": [{"oid": oid, "actions": {"upload": action}}]}
    body = json.dumps(answer).encode()
    hub.fail("POST", "/batch", Fault(body=body, headers={"Content-Length": str(len(body))}))
    with pytest.raises(HubError), repo.file("model.bin").open("wb") as file:
        file.write(BINARY)
    assert hub.requests("POST", "/commit/") == []


def test_the_sample_that_decides_is_the_beginning(hub, repo):
    with repo.file("a.txt").open("w") as file:
        file.write("a" * 1000)
    (request,) = hub.requests("POST", "/preupload/")
    (file,) = json.loads(request.body)["files"]
    assert base64.b64decode(file["sample"]) == b"a" * 512
    assert file["size"] == 1000


# ---- the progress bar ----


@pytest.mark.parametrize("part_size", [None, 64 << 10])
def test_one_bar_shows_all_large_files(part_size, hub, repo, bars):
    hub.part_size = part_size
    hub.fail("PUT", "", Fault(status=503))  # what is sent again is not counted twice
    with repo.transaction() as transaction:
        for name, content in {"a.bin": BINARY, "b.bin": BINARY[1:], "c.txt": b"text"}.items():
            with transaction.open(name, "wb") as file:
                file.write(content)
    (bar,) = bars
    assert bar.options["desc"] == f"{NAME}: upload of 2 files"
    assert bar.options["total"] == 2 * len(BINARY) - 1
    assert bar.options["disable"] is None
    assert bar.n == 2 * len(BINARY) - 1
    assert bar.closed


def test_small_files_and_content_that_is_there_have_no_bar(hub, repo, bars):
    hub.stored[hashlib.sha256(BINARY).hexdigest()] = BINARY
    with repo.transaction() as transaction:
        transaction.open("a.txt", "wb").write(b"text")
        transaction.open("a.bin", "wb").write(BINARY)
    assert bars == []


def test_the_bar_of_uploads_can_be_switched_off(hub, remote, repo, bars, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with repo.file("a.bin").open("wb") as file:
        file.write(BINARY)
    assert bars == []
    assert remote.files["a.bin"] == BINARY
