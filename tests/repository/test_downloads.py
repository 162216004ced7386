"""What is downloaded, how, and what happens when it breaks off."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from hub_server import COMMIT, Fault

from curated_transformers.repository import (
    ChecksumError,
    HfHubRepository,
    NetworkError,
    ServerError,
    fetch_files,
    transport,
)

LARGE = bytes(range(256)) * 4096  # 1 MiB
NAME = "org/model"


@pytest.fixture
def repo(hub):
    """org/model with a config and a large file in the storage for such."""
    hub.add(NAME, {"config.json": b"{}", "sub/model.bin": LARGE}, large={"sub/model.bin"})
    return HfHubRepository(NAME)


def blobs(cache):
    return {path.name for path in (cache / "models--org--model" / "blobs").iterdir()}


def read(repo, path="sub/model.bin"):
    with repo.file(path).open() as file:
        return file.read()


def ranges(hub):
    return [seen.headers.get("range") for seen in hub.requests("GET", "storage:")]


# ---- what is downloaded ----


def test_only_what_is_opened_is_downloaded(hub, repo, cache):
    assert repo.json_file("config.json") == {}
    assert [seen.method for seen in hub.seen] == ["HEAD", "GET"]
    assert len(blobs(cache)) == 1


def test_constructing_a_file_asks_nobody(hub, repo):
    file = repo.file("config.json")
    assert file.path is None
    assert hub.seen == []


def test_path_is_there_after_the_download(repo, cache):
    file = repo.file("sub/model.bin")
    file.open().close()
    expected = cache / "models--org--model" / "snapshots" / COMMIT / "sub" / "model.bin"
    assert file.path == str(expected)
    assert expected.read_bytes() == LARGE


def test_one_question_settles_the_revision_for_all_files(hub, repo):
    for _ in range(2):
        repo = HfHubRepository(NAME)
        hub.seen.clear()
        read(repo, "config.json")
        read(repo)
    assert [seen.method for seen in hub.seen] == ["HEAD"]


def test_files_stay_of_one_commit_when_the_branch_moves(hub, repo):
    files = hub.repos[NAME].files
    read(repo, "config.json")
    files["config.json"] = b'{"a": 1}'
    hub.repos[NAME].revisions = {"main": "f" * 40, "old": COMMIT}
    assert repo.json_file("config.json") == {}
    read(repo)
    assert f"/resolve/{COMMIT}/" in hub.requests("GET")[-2].path
    assert HfHubRepository(NAME).json_file("config.json") == {"a": 1}


def test_a_cached_commit_is_read_without_a_question(hub, repo):
    read(repo, "config.json")
    hub.seen.clear()
    assert HfHubRepository(NAME, revision=COMMIT).json_file("config.json") == {}
    assert hub.seen == []


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1.0 beta#?%", COMMIT])
def test_revisions_and_paths_are_quoted(revision, hub, cache):
    path = "a b/ü#?%41.txt"
    repo = hub.add(NAME, {path: b"text"})
    repo.revisions[revision] = COMMIT
    assert read(HfHubRepository(NAME, revision=revision), path) == b"text"
    assert "#" not in hub.seen[0].path
    assert hub.seen[0].path.count("/resolve/") == 1


def test_text_files_are_decoded(hub, cache):
    hub.add(NAME, {"a.txt": "é".encode()})
    with HfHubRepository(NAME).file("a.txt").open("r", encoding="utf-8") as file:
        assert file.read() == "é"


def test_empty_files_are_files(hub, cache):
    hub.add(NAME, {"empty.txt": b"", "empty.bin": b""}, large={"empty.bin"})
    repo = HfHubRepository(NAME)
    assert read(repo, "empty.txt") == b""
    assert read(repo, "empty.bin") == b""


def test_user_agent_names_the_package(hub, repo):
    read(repo)
    assert all(seen.headers["user-agent"].startswith("curated-transformers/") for seen in hub.seen)
    assert all(seen.headers["accept-encoding"] == "identity" for seen in hub.seen)


# ---- many files ----


def test_files_of_a_set_come_at_once(hub, cache):
    n = transport.CONCURRENT
    names = {f"{i}.bin": LARGE + bytes([i]) for i in range(n)}
    hub.add(NAME, names, large=set(names))
    barrier = threading.Barrier(n)  # nobody gets an answer before all have asked
    hub.fail("GET", "storage:", *[Fault(barrier=barrier)] * n)
    repo = HfHubRepository(NAME)
    files = [repo.file(name) for name in names]
    fetch_files(files)
    assert [Path(file.path).read_bytes() for file in files] == list(names.values())


def test_no_more_than_the_limit_come_at_once(hub, cache, monkeypatch):
    monkeypatch.setattr(transport, "CONCURRENT", 2)
    names = {f"{i}.txt": b"%d" % i for i in range(9)}
    hub.add(NAME, names)
    repo = HfHubRepository(NAME)
    fetch_files([repo.file(name) for name in names])
    connections = {seen.peer for seen in hub.seen}
    assert len(connections) <= 2
    assert len(hub.seen) == 18


def test_connections_are_kept_between_calls(hub, cache):
    names = {f"{i}.txt": b"%d" % i for i in range(9)}
    hub.add(NAME, names)
    for name in names:
        read(HfHubRepository(NAME), name)
    assert len({seen.peer for seen in hub.seen}) == 1


def test_local_and_foreign_files_are_left_alone(hub, repo, tmp_path):
    from curated_transformers.repository import LocalRepository

    read(repo, "config.json")
    file = repo.file("config.json")
    hub.seen.clear()
    fetch_files([file, LocalRepository(tmp_path).file("x")])
    fetch_files([])
    assert hub.seen == []


def test_equal_files_are_downloaded_once(hub, cache):
    hub.add(NAME, {"a.bin": LARGE, "b.bin": LARGE}, large={"a.bin", "b.bin"})
    repo = HfHubRepository(NAME)
    files = [repo.file("a.bin"), repo.file("b.bin"), repo.file("a.bin")]
    fetch_files(files)
    assert len(hub.requests("GET", "storage:")) == 1
    assert all(Path(file.path).read_bytes() == LARGE for file in files)


def test_what_did_arrive_is_kept_when_another_file_fails(hub, cache, monkeypatch):
    monkeypatch.setattr(transport, "CONCURRENT", 1)  # one after the other
    hub.add(NAME, {"a.txt": b"a", "b.txt": b"b"})
    hub.fail("GET", "/b.txt", Fault(status=403))
    repo = HfHubRepository(NAME)
    with pytest.raises(PermissionError):
        fetch_files([repo.file("a.txt"), repo.file("b.txt")])
    hub.seen.clear()
    fetch_files([repo.file("a.txt"), repo.file("b.txt")])
    assert [seen.path.rpartition("/")[2] for seen in hub.requests("GET")] == ["b.txt"]


def test_one_bar_shows_all_files(hub, repo, bars):
    fetch_files([repo.file("config.json"), repo.file("sub/model.bin")])
    (bar,) = bars
    assert bar.options["total"] == len(LARGE) + 2
    assert bar.options["disable"] is None  # tqdm looks whether there is a terminal
    assert bar.n == len(LARGE) + 2
    assert bar.closed


def test_the_bar_begins_where_the_last_download_ended(hub, repo, cache, bars):
    hub.fail("GET", "storage:", Fault(cut=1000), *[Fault(drop=True)] * (transport.TRIES - 1))
    with pytest.raises(NetworkError):
        read(repo)
    fetch_files([HfHubRepository(NAME).file("sub/model.bin")])
    assert [bar.options["initial"] for bar in bars] == [0, 1000]
    assert [bar.n for bar in bars] == [1000, len(LARGE)]


def test_small_single_files_have_no_bar(hub, repo, bars):
    read(repo, "config.json")
    assert bars == []


@pytest.mark.parametrize("value", ["1", "on", "Yes", "TRUE"])
def test_bars_can_be_switched_off(value, hub, repo, bars, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", value)
    fetch_files([repo.file("sub/model.bin")])
    assert bars == []


# ---- continuing ----


def test_a_download_that_breaks_off_is_continued(hub, repo):
    hub.fail("GET", "storage:", Fault(cut=1000), Fault(cut=5000))
    assert read(repo) == LARGE
    assert ranges(hub) == [None, "bytes=1000-", "bytes=6000-"]


def test_a_later_download_begins_where_an_earlier_one_ended(hub, repo, cache):
    hub.fail("GET", "storage:", Fault(cut=1000), *[Fault(drop=True)] * (transport.TRIES - 1))
    with pytest.raises(NetworkError, match=r"File could not be opened: org/model/sub/model\.bin"):
        read(repo)
    (blob,) = blobs(cache)
    assert blob == f"{hashlib.sha256(LARGE).hexdigest()}.incomplete"
    assert (cache / "models--org--model" / "blobs" / blob).read_bytes() == LARGE[:1000]
    hub.seen.clear()
    assert read(HfHubRepository(NAME)) == LARGE
    assert ranges(hub) == ["bytes=1000-"]
    assert blobs(cache) == {blob.removesuffix(".incomplete")}


def test_a_download_that_gets_further_each_time_is_not_given_up(hub, repo):
    hub.fail("GET", "storage:", *[Fault(cut=100)] * (3 * transport.TRIES))
    assert read(repo) == LARGE


def test_a_server_without_ranges_sends_all_again(hub, repo):
    hub.fail("GET", "storage:", Fault(cut=1000), Fault(ignore_range=True))
    assert read(repo) == LARGE
    assert ranges(hub) == [None, "bytes=1000-"]


def test_a_server_that_sends_another_part_is_not_believed(hub, repo):
    wrong = Fault(headers={"Content-Range": f"bytes 0-{len(LARGE) - 1}/{len(LARGE)}"})
    hub.fail("GET", "storage:", Fault(cut=1000), wrong)
    assert read(repo) == LARGE
    assert ranges(hub) == [None, "bytes=1000-", None]


def test_a_server_that_has_no_such_part_is_asked_for_all(hub, repo):
    hub.fail("GET", "storage:", Fault(cut=1000), Fault(status=416))
    assert read(repo) == LARGE
    assert ranges(hub) == [None, "bytes=1000-", None]


@pytest.mark.parametrize("rest", [b"x" * 1000, b"x" * (len(LARGE) + 1), b"x" * len(LARGE), LARGE])
def test_leftovers_of_other_programs_are_verified(rest, hub, repo, cache):
    folder = cache / "models--org--model" / "blobs"
    folder.mkdir(parents=True)
    (folder / f"{hashlib.sha256(LARGE).hexdigest()}.incomplete").write_bytes(rest)
    assert read(repo) == LARGE


def test_a_stalled_download_is_continued(hub, repo, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.5")
    stall = threading.Event()
    hub.fail("GET", "storage:", Fault(cut=1000, stall=stall))
    assert read(repo) == LARGE
    stall.set()
    assert ranges(hub) == [None, "bytes=1000-"]


# ---- verifying ----


def test_content_with_another_hash_is_refused_and_removed(hub, repo, cache):
    hub.fail("GET", "storage:", Fault(body=b"x" * len(LARGE)))
    with pytest.raises(ChecksumError, match=hashlib.sha256(LARGE).hexdigest()):
        read(repo)
    assert blobs(cache) == set()
    assert read(repo) == LARGE


@pytest.mark.parametrize("path", ["config.json", "sub/model.bin"])
def test_content_that_is_too_long_is_refused(path, hub, repo, cache):
    content = hub.repos[NAME].files[path]
    hub.fail("GET", "storage:" if "sub" in path else f"/{path}", Fault(body=content + b"x"))
    with pytest.raises(ChecksumError, match=f"another size than the {len(content)} bytes"):
        read(repo, path)
    assert blobs(cache) == set()
    assert read(repo, path) == content


def test_content_that_stays_too_short_is_refused(hub, repo, cache):
    short = Fault(body=LARGE[:1000])
    hub.fail("GET", "storage:", short, *[Fault(status=416)] * transport.TRIES)
    with pytest.raises(ServerError, match="416"):
        read(repo)
    hub.fail("GET", "storage:", *[Fault(body=b"", ignore_range=True)] * (2 * transport.TRIES))
    with pytest.raises(ChecksumError, match="0 bytes came"):
        read(HfHubRepository(NAME))


# ---- trying again ----


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_servers_that_are_busy_are_asked_again(status, method, hub, repo):
    hub.fail(method, "", Fault(status=status), Fault(status=status))
    assert read(repo) == LARGE


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_dropped_connections_are_made_again(method, hub, repo):
    hub.fail(method, "", Fault(drop=True), Fault(raw=b"HTTP/1.1 200 OK\r\nContent-Le"))
    assert read(repo) == LARGE


def test_the_server_says_how_long_to_wait(hub, repo, monkeypatch):
    delays = []

    def delay(*arguments, **options):
        delays.append(real(*arguments, **options))
        return None if delays[-1] is None else 0.0

    real = transport.retry_delay
    monkeypatch.setattr(transport, "retry_delay", delay)
    hub.fail("HEAD", "", Fault(status=429, headers={"Retry-After": "17"}))
    assert read(repo, "config.json") == b"{}"
    assert delays == [17.0, None]


def answer(status=503, code=0, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return transport.Answer("http://x", status, headers, b"", code, "", 0, "", 0)


def test_waits_double_and_end(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_DELAY", 1.0)
    delays = [transport.retry_delay(answer(), tries) for tries in range(1, transport.TRIES + 1)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0, None]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("120", 120.0), ("3600", None), ("-5", 1.0), ("soon", 1.0), ("1e3", 1.0)],
)
def test_retry_after_in_seconds(value, seconds, monkeypatch):
    monkeypatch.setattr(transport, "FIRST_DELAY", 1.0)
    assert transport.retry_delay(answer(429, retry_after=value), 1) == seconds


def test_retry_after_as_a_date(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 784111777.0)  # the date of RFC 9110, 5.6.7
    for date, seconds in [("37", 0.0), ("49", 12.0)]:
        value = f"Sun, 06 Nov 1994 08:49:{date} GMT"
        assert transport.retry_after(value) == seconds
    assert transport.retry_after("Sun, 99 Nov 1994 08:49:37 GMT") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
def test_final_answers_are_final(status, hub, repo):
    hub.fail("HEAD", "", Fault(status=status))
    with pytest.raises(OSError, match=r"org/model/config\.json"):
        read(repo, "config.json")
    assert len(hub.seen) == 1


def test_a_server_that_stays_busy_is_an_error(hub, repo):
    fault = Fault(status=503, headers={"X-Error-Message": "maintenance until noon"})
    hub.fail("HEAD", "", *[fault] * transport.TRIES)
    with pytest.raises(ServerError, match=r"answered 503.*maintenance until noon"):
        read(repo)
    assert len(hub.seen) == transport.TRIES
