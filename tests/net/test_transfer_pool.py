"""The transfers themselves, without anything that decides about them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from curated_transformers._core import TransferPool


class Server:
    """Answers each connection with the same bytes and keeps what was sent to it."""

    def __init__(self, answer, close=True):
        self.answer, self.close, self.heard = answer, close, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        self.connections = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections.append(connection)
            with contextlib.suppress(OSError):  # a client that has gone away
                self.answer_one(connection)

    def answer_one(self, connection):
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += connection.recv(1 << 16) or b"\r\n\r\n"
        self.heard.append(heard)
        connection.sendall(self.answer)
        if self.close:
            connection.close()

    def stop(self):
        if self.socket.fileno() < 0:
            return
        self.socket.shutdown(socket.SHUT_RDWR)
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        self.thread.join()  # it may be about to keep one more connection
        self.socket.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def serve(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    servers = []

    def make(answer, **options):
        servers.append(Server(answer, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def one(pool, *arguments, **options):
    number = pool.add(*arguments, **options)
    answers = []
    while not answers:
        answers = pool.run(60.0)
    assert answers[0][0] == number
    return answers[0][1:]


def test_an_answer_has_its_status_header_and_body(serve):
    status, code, refusal, errno, message, header, body, position = one(
        TransferPool(), "GET", serve(OK).url, ("X-A: b",)
    )
    assert (status, code, refusal, errno, message) == (200, 0, "", 0, b"")
    assert header == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert body == b"hello"
    assert position == 0


def test_headers_are_sent_as_they_are(serve):
    server = serve(OK)
    one(TransferPool(), "DELETE", server.url, ("X-A: b", "X-Ü: é"))
    assert server.heard[0].startswith(b"DELETE / HTTP/1.1\r\n")
    assert b"\r\nX-A: b\r\n" in server.heard[0]
    assert "\r\nX-Ü: é\r\n".encode() in server.heard[0]


def test_interim_answers_are_left_out(serve):
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    status, _, _, _, _, header, body, _ = one(TransferPool(), "GET", serve(answer).url, ())
    assert status == 200
    assert header.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Link" not in header
    assert body == b"hello"


def test_error_bodies_do_not_reach_the_file(serve, tmp_path):
    answer = b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nsorry"
    with (tmp_path / "f").open("w+b") as file:
        file.write(b"abc")
        file.flush()
        result = one(TransferPool(), "GET", serve(answer).url, (), output=(file.fileno(), 3, -1))
    assert result[0] == 404
    assert result[6:] == (b"sorry", 3)
    assert (tmp_path / "f").read_bytes() == b"abc"


def test_a_whole_answer_replaces_what_the_file_has(serve, tmp_path):
    with (tmp_path / "f").open("w+b") as file:
        file.write(b"abcdefgh")
        file.flush()
        result = one(TransferPool(), "GET", serve(OK).url, (), output=(file.fileno(), 8, -1))
    assert result[7] == 5
    assert (tmp_path / "f").read_bytes() == b"hello"


@pytest.mark.parametrize(
    "content_range", ["bytes 2-6/7", "bytes */7", "bytes -3/7", "items 3-7/8", "bytes 3", ""]
)
def test_only_the_part_that_follows_is_appended(content_range, serve, tmp_path):
    answer = OK.replace(b"200 OK", b"206 Part").replace(
        b"\r\n\r\n", f"\r\nContent-Range: {content_range}\r\n\r\n".encode()
    )
    with (tmp_path / "f").open("w+b") as file:
        file.write(b"abc")
        file.flush()
        output = (file.fileno(), 3, -1)
        refused = one(TransferPool(), "GET", serve(answer).url, (), output=output)
        right = answer.replace(content_range.encode() + b"\r\n", b"BYTES 3-7/8\r\n", 1)
        right = answer.replace(
            f"Content-Range: {content_range}".encode(), b"content-range:bytes 3-7/8"
        )
        accepted = one(TransferPool(), "GET", serve(right).url, (), output=output)
    assert refused[2] == "range"
    assert refused[7] == 3
    assert accepted[2] == ""
    assert (tmp_path / "f").read_bytes() == b"abchello"


def test_a_body_that_is_too_long_is_cut_off(serve, tmp_path):
    with (tmp_path / "f").open("w+b") as file:
        result = one(TransferPool(), "GET", serve(OK).url, (), output=(file.fileno(), 0, 4))
    assert result[2] == "length"
    assert (tmp_path / "f").stat().st_size == 0


def test_a_body_in_memory_has_a_limit(serve):
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(65 << 20)
    result = one(TransferPool(), "GET", serve(answer).url, ())
    assert result[2] == "length"
    assert len(result[6]) == 64 << 20


def test_bodies_are_sent_from_memory_and_files(serve, tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    server = serve(OK)
    pool = TransferPool()
    one(pool, "POST", server.url, ("Content-Type: text/plain",), body=b"from memory")
    with (tmp_path / "f").open("rb") as file:
        one(pool, "PUT", server.url, (), upload=(file.fileno(), 2, 5))
    assert server.heard[0].startswith(b"POST / HTTP/1.1\r\n")
    assert b"Content-Length: 11\r\n" in server.heard[0]
    assert server.heard[1].startswith(b"PUT / HTTP/1.1\r\n")
    assert b"Content-Length: 5\r\n" in server.heard[1]


def test_a_file_that_is_shorter_than_announced_is_an_error(serve, tmp_path):
    (tmp_path / "f").write_bytes(b"0123")
    with (tmp_path / "f").open("rb") as file:
        upload = (file.fileno(), 0, 100)
        silent = serve(b"", close=False)
        result = one(TransferPool(), "PUT", silent.url, (), upload=upload)
    assert result[2] == "file"
    assert b"shorter" in result[4]


def test_a_silent_server_is_given_up(serve):
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=False)
    result = one(TransferPool(), "GET", server.url, (), idle_timeout=0.2)
    assert result[:2] == (200, 28)
    assert result[4] == b"no byte came for 0.2 seconds"
    assert result[6] == b"hello"


def test_other_protocols_are_not_spoken(tmp_path):
    (tmp_path / "f").write_text("secret")
    status, code, _, _, _, _, body, _ = one(TransferPool(), "GET", f"file://{tmp_path}/f", ())
    assert (status, body) == (0, b"")
    assert code == 1  # CURLE_UNSUPPORTED_PROTOCOL


def test_redirects_are_not_followed(serve):
    answer = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
    server = serve(answer)
    assert one(TransferPool(), "GET", server.url, ())[0] == 302
    assert len(server.heard) == 1


def test_progress_and_cancelling(serve, tmp_path):
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=False)
    pool = TransferPool()
    with (tmp_path / "f").open("w+b") as file:
        number = pool.add("GET", server.url, (), output=(file.fileno(), 0, -1))
        assert pool.progress(number) == (0, 0)
        while pool.progress(number) != (5, 0):
            assert pool.run(0.05) == []
        pool.cancel(number)
        pool.cancel(number)
        with pytest.raises(ValueError, match="is not active"):
            pool.progress(number)
    assert pool.run(1.0) == []
    assert (tmp_path / "f").read_bytes() == b"hello"


def test_a_pool_can_go_while_it_works(serve):
    server = serve(b"", close=False)
    pool = TransferPool()
    pool.add("GET", server.url, ())
    pool.run(0.01)
    del pool


def test_a_pool_belongs_to_one_thread(serve):
    server = serve(b"", close=False)
    pool = TransferPool()
    number = pool.add("GET", server.url, (), idle_timeout=60)
    errors = []
    inside = threading.Event()

    def work():
        inside.set()
        pool.run(60.0)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(60)
    while not errors:
        try:
            pool.progress(number)
        except RuntimeError as error:
            errors.append(str(error))
    assert errors == ["this pool of transfers is in use by another thread"]
    server.stop()
    thread.join()


@pytest.mark.parametrize("header", ["A: b\r\nC: d", "A: b\nC", "A: b\0"])
def test_headers_are_one_line(header):
    with pytest.raises(ValueError, match="header 1 holds a line break") as error:
        TransferPool().add("GET", "http://127.0.0.1:1/", ("X: y", header))
    assert "A: b" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("GET",), {}),
        (("GET", "http://x", ["A: b"]), {}),
        (("GET", "http://x", (1,)), {}),
        (("GET", "http://x", ()), {"output": 3}),
        (("GET", "http://x", ()), {"output": (1, 2)}),
        (("GET", "http://x", ()), {"body": "text", "upload": "x"}),
        (("GET", "http://x", ()), {"unknown": 1}),
    ],
)
def test_wrong_arguments_are_type_errors(arguments, options):
    with pytest.raises(TypeError):
        TransferPool().add(*arguments, **options)
