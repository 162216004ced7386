"""Downloads in processes of their own: interrupted, in company, after a fork, without libcurl."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from hub_server import Fault

from curated_transformers.repository import HfHubRepository, transport

NAME = "org/model"
LARGE = bytes(range(256)) * 4096
DOWNLOAD = (
    "from curated_transformers.repository import HfHubRepository\n"
    f"with HfHubRepository({NAME!r}).file('model.bin').open() as file:\n"
    "    print(len(file.read()))\n"
)


@pytest.fixture
def model(hub):
    hub.add(NAME, {"model.bin": LARGE}, large={"model.bin"})
    return hub


def start(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for(condition):
    """Until something has happened elsewhere; a minute, so that a test that fails ends."""
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def incomplete(cache):
    return list((cache / "models--org--model" / "blobs").glob("*.incomplete"))


def test_ctrl_c_stops_a_download_that_can_be_continued(model, cache):
    stall = threading.Event()
    model.fail("GET", "storage:", Fault(cut=1000, stall=stall))
    process = start(DOWNLOAD, HF_HUB_DOWNLOAD_TIMEOUT="3600")
    wait_for(lambda: [path.stat().st_size for path in incomplete(cache)] == [1000])
    process.send_signal(signal.SIGINT)
    # It waits for the server, which does not go on: only the signal can end it.
    out, err = process.communicate(timeout=60)
    stall.set()
    assert "KeyboardInterrupt" in err
    assert out == ""
    (rest,) = incomplete(cache)
    assert rest.read_bytes() == LARGE[:1000]
    with HfHubRepository(NAME).file("model.bin").open() as file:
        assert file.read() == LARGE
    assert model.requests("GET", "storage:")[-1].headers["range"] == "bytes=1000-"


def test_ctrl_c_stops_the_wait_for_another_process(model, cache):
    stall = threading.Event()
    model.fail("GET", "storage:", Fault(cut=1000, stall=stall))
    first = start(DOWNLOAD, HF_HUB_DOWNLOAD_TIMEOUT="3600")
    wait_for(lambda: incomplete(cache) and incomplete(cache)[0].stat().st_size == 1000)
    second = start(DOWNLOAD)
    wait_for(lambda: len(model.requests("HEAD")) == 2)
    second.send_signal(signal.SIGINT)
    _, err = second.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    stall.set()
    assert first.communicate(timeout=60)[0] == f"{len(LARGE)}\n"


def test_processes_that_want_the_same_file_fetch_it_once(model, cache):
    stall = threading.Event()
    model.fail("GET", "storage:", Fault(cut=1000, stall=stall))
    processes = [start(DOWNLOAD, HF_HUB_DOWNLOAD_TIMEOUT="3600") for _ in range(3)]
    # All have asked about the file, and one of them is downloading it.
    wait_for(lambda: len(model.requests("HEAD")) == 3)
    wait_for(lambda: incomplete(cache) and incomplete(cache)[0].stat().st_size == 1000)
    stall.set()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert out == f"{len(LARGE)}\n", err
    assert [seen.headers.get("range") for seen in model.requests("GET", "storage:")] == [
        None,
        "bytes=1000-",
    ]


def test_the_lock_of_a_process_that_died_is_free(model, cache):
    stall = threading.Event()
    model.fail("GET", "storage:", Fault(cut=1000, stall=stall))
    process = start(DOWNLOAD, HF_HUB_DOWNLOAD_TIMEOUT="3600")
    wait_for(lambda: incomplete(cache) and incomplete(cache)[0].stat().st_size == 1000)
    process.kill()
    process.communicate()
    stall.set()
    with HfHubRepository(NAME).file("model.bin").open() as file:
        assert file.read() == LARGE


def test_threads_that_want_the_same_file_fetch_it_once(model, cache):
    barrier = threading.Barrier(4)
    sizes = []

    def work():
        barrier.wait(60)
        with HfHubRepository(NAME).file("model.bin").open() as file:
            sizes.append(len(file.read()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [len(LARGE)] * 4
    assert len(model.requests("GET", "storage:")) == 1


def test_a_forked_child_has_its_own_connections(model, cache):
    model.repos[NAME].files["a.txt"] = b"a"
    model.repos[NAME].files["b.txt"] = b"b"
    code = (
        "import os\n"
        "from curated_transformers.repository import HfHubRepository\n"
        f"repo = HfHubRepository({NAME!r})\n"
        "repo.file('a.txt').open().close()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    repo.file('model.bin').open().close()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "repo.file('b.txt').open().close()\n"
    )
    process = start(code)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    parent = {seen.peer for seen in model.requests("GET", ".txt") if seen.role == "hub"}
    child = {
        seen.peer
        for seen in model.requests("GET", "hub:/org/model/resolve")
        if "model.bin" in seen.path
    }
    assert len(parent) == 1  # the parent's connection survived the child
    assert not parent & child


def test_without_libcurl_the_error_says_what_to_install(model, cache):
    process = start(DOWNLOAD, CURATED_TRANSFORMERS_LIBCURL="/nonexistent/libcurl.so.4")
    _, err = process.communicate(timeout=60)
    assert "NetworkError" in err
    assert "CURATED_TRANSFORMERS_LIBCURL cannot be loaded" in err
    assert model.seen == []


def test_without_libcurl_the_cache_is_used(model, cache):
    with HfHubRepository(NAME).file("model.bin").open():
        pass
    process = start(DOWNLOAD, CURATED_TRANSFORMERS_LIBCURL="/nonexistent/libcurl.so.4")
    out, err = process.communicate(timeout=60)
    assert out == f"{len(LARGE)}\n"
    assert "using cached artifact" in err


def test_a_limit_on_file_sizes_is_a_clear_error(model, cache):
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
    )
    process = start(code + DOWNLOAD)
    _, err = process.communicate(timeout=60)
    assert "File could not be opened: org/model/model.bin" in err
    assert "File too large" in err
    (rest,) = incomplete(cache)
    assert rest.read_bytes() == LARGE[:5000]
    with HfHubRepository(NAME).file("model.bin").open() as file:
        assert file.read() == LARGE
    assert model.requests("GET", "storage:")[-1].headers["range"] == "bytes=5000-"


def test_an_error_in_one_file_stops_the_others(hub, cache):
    """They would wait for a server that does not go on."""
    from curated_transformers.repository import AccessError, fetch_files

    stall = threading.Event()
    hub.add(NAME, {"a.bin": LARGE, "b.txt": b"b"}, large={"a.bin"})
    hub.fail("GET", "storage:", Fault(cut=1000, stall=stall))
    hub.fail("GET", "/b.txt", Fault(status=403))
    repo = HfHubRepository(NAME)
    with pytest.raises(AccessError):
        fetch_files([repo.file("a.bin"), repo.file("b.txt")])
    stall.set()


def test_flows_are_closed_when_another_fails():
    closed = []

    def waiting(name):
        try:
            while True:
                yield 3600.0
        finally:
            closed.append(name)

    def failing():
        yield 0.0
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        transport.run([waiting("a"), failing(), waiting("b")])
    assert sorted(closed) == ["a", "b"]
