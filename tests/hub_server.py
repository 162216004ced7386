"""A small Hub on loopback, with its storage on another port, which misbehave when a test says so.

It follows the protocol as huggingface_hub speaks it, which reads and writes here, too, in the slow
tests. Nothing of the package is used.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: A key for 127.0.0.1 and its certificate, which nobody else trusts: openssl req -x509 -newkey ec
#: -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj "/CN=loopback test server"
#: -addext subjectAltName=IP:127.0.0.1
CERTIFICATE = Path(__file__).with_name("loopback.pem")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What happens instead of the right answer, once."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)  # added to, or replacing, the right ones
    body: bytes | None = None
    raw: bytes | None = None  # all that is sent; the connection is closed
    drop: bool = False  # the connection is closed without an answer
    cut: int | None = None  # only so many bytes of the body are sent
    cut_answer: int | None = None  # only so many bytes of header and body are sent
    stall: threading.Event | None = None  # waited for where the body was cut
    ignore_range: bool = False
    barrier: threading.Barrier | None = None  # waited for before the answer


@dataclass
class Seen:
    """A request that arrived."""

    role: str  # "hub" or "storage"
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    peer: tuple[str, int]  # tells connections apart
    answer: bytes = b""  # what would have been sent, if it was cut off


@dataclass
class Repo:
    """A repository: its files, and those that are large."""

    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    private: bool = False
    gated: bool = False
    commits: list[list[dict[str, Any]]] = field(default_factory=list)


class Hub:
    """The two servers and what they know."""

    def __init__(self, token: str = "hf_secret", *, tls: bool = False) -> None:
        self.token, self.tls = token, tls
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.stored: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_size: int | None = None  # uploads go in parts of this size
        self._faults: list[tuple[str, str, Fault]] = []
        self._lock = threading.Lock()
        self._servers = [_Server(self, role) for role in ("hub", "storage")]
        self.url, self.storage_url = (server.url for server in self._servers)

    def add(self, name: str, files: dict[str, bytes], *, large: set[str] = frozenset()) -> Repo:
        self.repos[name] = Repo(dict(files), set(large))
        return self.repos[name]

    def fail(self, method: str, path_part: str, *faults: Fault) -> None:
        """The next requests whose path contains ``path_part`` meet these faults, one each."""
        self._faults += [(method, path_part, fault) for fault in faults]

    def fault(self, seen: Seen) -> Fault:
        with self._lock:
            for i, (method, part, fault) in enumerate(self._faults):
                if method == seen.method and part in f"{seen.role}:{seen.path}":
                    del self._faults[i]
                    return fault
        return Fault()

    def recover(self) -> None:
        """Forgets all faults that nobody has met."""
        with self._lock:
            self._faults.clear()

    def requests(self, method: str, part: str = "") -> list[Seen]:
        """The requests so far, by method and a part of ``role:path``."""
        return [s for s in self.seen if s.method == method and part in f"{s.role}:{s.path}"]

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: Hub, role: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.role = hub, role
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        if hub.tls:
            self.url = self.url.replace("http:", "https:")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are what some tests are about

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._chunks()
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.server.role, self.command, self.path, headers, body, self.client_address)
        hub = self.server.hub
        hub.seen.append(seen)
        fault = hub.fault(seen)
        if fault.barrier is not None:
            fault.barrier.wait(60)
        if fault.drop or fault.raw is not None:
            self.wfile.write(fault.raw or b"")
            self.close_connection = True
            return
        status, answer_headers, answer = _answer(hub, seen)
        if fault.status is not None:
            status, answer_headers, answer = fault.status, {}, b""
        if fault.body is not None:
            answer = fault.body
        if fault.cut_answer is None:
            self._send(status, {**answer_headers, **fault.headers}, answer, fault)
            return
        connection, self.wfile = self.wfile, io.BytesIO()
        self._send(status, answer_headers, answer, fault)
        seen.answer, self.wfile = self.wfile.getvalue(), connection
        self.wfile.write(seen.answer[: fault.cut_answer])
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = _handle  # noqa: N815

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and status == 200 and not fault.ignore_range:
            start, size = int(asked[1]), len(body)
            body = body[start : int(asked[2]) + 1 if asked[2] else None]
            if start >= size:
                status = 416
            else:
                status = 206
                last = start + len(body) - 1
                headers = {"Content-Range": f"bytes {start}-{last}/{size}", **headers}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut is not None:
            self.wfile.write(body[: fault.cut])
            if fault.stall is not None:
                fault.stall.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body)


Result = tuple[int, dict[str, str], bytes]


def _answer(hub: Hub, seen: Seen) -> Result:
    path = urlsplit(seen.path).path
    if seen.role == "storage":
        return _storage(hub, seen, path)
    if found := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
        return _resolve(hub, seen, *(unquote(part) for part in found.groups()))
    if found := re.fullmatch(r"/api/models/(.+)/(revision|tree|preupload|commit)/([^/]+)", path):
        name, action, revision = (unquote(part) for part in found.groups())
        repo, error = _repo(hub, seen, name)
        if repo is None:
            return error
        return _ACTIONS[action](hub, seen, name, repo, revision)
    if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
        return _lfs_batch(hub, seen)
    if path == "/verify":
        asked = json.loads(seen.body)
        known = len(hub.stored.get(asked["oid"], b"")) == asked["size"]
        return (200 if known else 404), {}, b"{}"
    return _json(404, {"error": "no such page"})


def _json(status: int, value: Any, **headers: str) -> Result:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


def _error(status: int, code: str, message: str, **headers: str) -> Result:
    return _json(status, {"error": message}, X_Error_Code=code, X_Error_Message=message, **headers)


def _repo(hub: Hub, seen: Seen, name: str) -> tuple[Repo | None, Result]:
    repo = hub.repos.get(name)
    authorized = seen.headers.get("authorization") == f"Bearer {hub.token}"
    if repo is None or (repo.private and not authorized):
        return None, _error(401 if not authorized else 404, "RepoNotFound", "Repository not found")
    if repo.gated and not authorized:
        return None, _error(401, "GatedRepo", f"Access to model {name} is restricted.")
    return repo, (200, {}, b"")


def _resolve(hub: Hub, seen: Seen, name: str, revision: str, path: str) -> Result:
    if name in hub.renamed:
        return 307, {"Location": seen.path.replace(name, hub.renamed[name], 1)}, b""
    repo, error = _repo(hub, seen, name)
    if repo is None:
        return error
    commit = repo.revisions.get(revision, revision)
    if commit not in repo.revisions.values():
        return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    if path not in repo.files:
        return _error(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
    content = repo.files[path]
    if path in repo.large:
        oid = hashlib.sha256(content).hexdigest()
        hub.stored[oid] = content
        return (
            302,
            {
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{oid}"',
                "X-Linked-Size": str(len(content)),
                "ETag": '"of-the-pointer"',
                "Location": f"{hub.storage_url}/{oid}?signature=key",
            },
            b"",
        )
    return 200, {"X-Repo-Commit": commit, "ETag": f'W/"{_blob(content)}"'}, content


def _storage(hub: Hub, seen: Seen, path: str) -> Result:
    oid = path.strip("/")
    if seen.method in ("GET", "HEAD"):
        content = hub.stored.get(oid)
        return (200, {}, content) if content is not None else (404, {}, b"")
    part = parse_qs(urlsplit(seen.path).query).get("part")
    if seen.method == "PUT" and part:
        hub.parts.setdefault(oid, {})[int(part[0])] = seen.body
        return 200, {"ETag": f'"part-{part[0]}"'}, b""
    if seen.method == "PUT":
        hub.stored[oid] = seen.body
        return 200, {}, b""
    done = json.loads(seen.body)
    assert [p["etag"] for p in done["parts"]] == [f'"part-{n}"' for n in sorted(hub.parts[oid])]
    hub.stored[oid] = b"".join(hub.parts[oid][p["partNumber"]] for p in done["parts"])
    return _json(200, {})


def _revision(hub: Hub, seen: Seen, name: str, repo: Repo, revision: str) -> Result:
    commit = repo.revisions.get(revision, revision)
    files = [{"rfilename": path} for path in repo.files]
    return _json(200, {"id": name, "modelId": name, "sha": commit, "siblings": files})


def _tree(hub: Hub, seen: Seen, name: str, repo: Repo, revision: str) -> Result:
    entries = []
    for path, content in repo.files.items():
        entry = {"type": "file", "path": path, "size": len(content), "oid": _blob(content)}
        if path in repo.large:
            oid = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return _json(200, entries)


def _blob(content: bytes) -> str:
    """What git calls the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _preupload(hub: Hub, seen: Seen, name: str, repo: Repo, revision: str) -> Result:
    files = []
    for file in json.loads(seen.body)["files"]:
        sample = base64.b64decode(file["sample"])
        mode = "lfs" if b"\0" in sample else "regular"
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
    return _json(200, {"files": files})


def _lfs_batch(hub: Hub, seen: Seen) -> Result:
    objects = []
    for item in json.loads(seen.body)["objects"]:
        oid, size = item["oid"], item["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        url = f"{hub.storage_url}/{oid}"
        if oid not in hub.stored:
            upload: dict[str, Any] = {"href": url}
            if hub.part_size is not None:
                n = -(-size // hub.part_size)
                parts = {f"{i:05d}": f"{url}?part={i}" for i in range(1, n + 1)}
                upload["header"] = {"chunk_size": str(hub.part_size), **parts}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/verify"}}
        objects.append(entry)
    transfer = "basic" if hub.part_size is None else "multipart"
    return _json(200, {"transfer": transfer, "objects": objects})


def _commit(hub: Hub, seen: Seen, name: str, repo: Repo, revision: str) -> Result:
    if seen.headers.get("authorization") != f"Bearer {hub.token}":
        return _json(403, {"error": "You have read access but not the required permissions"})
    lines = [json.loads(line) for line in seen.body.splitlines()]
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            repo.files[value["path"]] = base64.b64decode(value["content"])
            repo.large.discard(value["path"])
        elif line["key"] == "lfsFile":
            repo.files[value["path"]] = hub.stored[value["oid"]]
            repo.large.add(value["path"])
    repo.commits.append(lines)
    commit = hashlib.sha1(seen.body).hexdigest()
    repo.revisions[revision] = commit
    url = f"{hub.url}/{name}/commit/{commit}"
    return _json(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


_ACTIONS = {"revision": _revision, "tree": _tree, "preupload": _preupload, "commit": _commit}
