"""The token goes to the Hub and nowhere else, and nothing that a server sends is believed."""

from __future__ import annotations

import logging

import pytest
from hub_server import COMMIT, Fault

from curated_transformers.repository import (
    HfHubRepository,
    HubError,
    NetworkError,
    RepositoryNotFoundError,
    ServerError,
    transport,
)

NAME = "org/model"
TOKEN = "hf_very_secret"


@pytest.fixture
def repo(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.token = TOKEN
    hub.add(NAME, {"config.json": b"{}", "model.bin": b"\0" * 1000}, large={"model.bin"})
    return HfHubRepository(NAME)


def tokens(hub, role):
    return {seen.headers.get("authorization") for seen in hub.seen if seen.role == role}


def test_the_token_goes_to_the_hub_and_not_to_its_storage(hub, repo):
    repo.file("model.bin").open().close()
    assert tokens(hub, "hub") == {f"Bearer {TOKEN}"}
    assert tokens(hub, "storage") == {None}


def test_the_token_does_not_come_back_after_a_detour(hub, repo):
    back = Fault(status=302, headers={"Location": f"{hub.url}/detour"})
    hub.fail("GET", "storage:", back)
    with pytest.raises(HubError):
        repo.file("model.bin").open()
    (detour,) = hub.requests("GET", "/detour")
    assert "authorization" not in detour.headers


def test_renamed_repositories_are_found_with_the_token(hub, repo):
    hub.renamed["old/name"] = NAME
    hub.repos[NAME].private = True
    renamed = HfHubRepository("old/name")
    assert renamed.json_file("config.json") == {}
    with renamed.file("model.bin").open() as file:
        assert file.read() == b"\0" * 1000
    assert tokens(hub, "hub") == {f"Bearer {TOKEN}"}


def test_absolute_redirects_within_the_hub_are_followed(hub, repo):
    target = f"{hub.url}/{NAME}/resolve/main/config.json"
    hub.fail("HEAD", "", Fault(status=301, headers={"Location": target}))
    assert repo.json_file("config.json") == {}
    assert tokens(hub, "hub") == {f"Bearer {TOKEN}"}


def test_the_storage_may_be_on_the_hubs_host(hub, repo):
    target = f"{hub.url}/storage/model.bin"
    answer = {"X-Linked-Etag": "abc", "X-Linked-Size": "3", "X-Repo-Commit": COMMIT}
    hub.fail("HEAD", "", Fault(status=302, headers={"Location": target, **answer}))
    hub.fail("GET", "", Fault(status=302, headers={"Location": target}))
    found = Fault(status=200, body=b"xyz", headers={"Content-Length": "3"})
    hub.fail("GET", "/storage/model.bin", found)
    with repo.file("model.bin").open() as file:
        assert file.read() == b"xyz"
    assert len(hub.requests("HEAD")) == 1


def test_the_token_file_is_used(hub, repo, monkeypatch, tmp_path):
    hub.repos[NAME].private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RepositoryNotFoundError):
        repo.file("config.json").open()
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(f"{TOKEN}\n")
    assert HfHubRepository(NAME).file("config.json").exists()
    (home / "token").write_text("hf_other")
    (tmp_path / "elsewhere").write_text(TOKEN)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert HfHubRepository(NAME).file("model.bin").exists()


def test_the_token_is_not_used_when_that_is_forbidden(hub, repo, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    repo.file("config.json").open().close()
    assert tokens(hub, "hub") == {None}


@pytest.mark.parametrize("token", ["hf_a\r\nX-Evil: 1", "hf_a b", "hf_é"])
def test_invalid_tokens_are_refused_untold(token, hub, repo, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ValueError, match="HF_TOKEN") as refusal:
        repo.file("config.json").open()
    assert "hf_a" not in str(refusal.value)
    assert hub.seen == []


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_the_token_is_in_no_error_and_no_log(status, hub, repo, caplog, monkeypatch, capfd):
    caplog.set_level(logging.DEBUG)
    echo = Fault(status=status, headers={"X-Error-Message": f"Bearer {TOKEN} is not good"})
    hub.fail("HEAD", "", *[echo] * transport.TRIES)
    with pytest.raises(HubError, match=r"\[token\] is not good") as refusal:
        repo.file("config.json").open()
    error: BaseException | None = refusal.value
    while error is not None:
        assert TOKEN not in f"{error}{error!r}{vars(error)}"
        error = error.__cause__ or error.__context__
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text
    assert TOKEN not in repr(transport.Request("GET", "http://x", {"Authorization": TOKEN}))


def test_keys_in_urls_are_in_no_error(hub, repo):
    hub.fail("GET", "storage:", *[Fault(status=403)] * transport.TRIES)
    with pytest.raises(HubError) as refusal:
        repo.file("model.bin").open()
    assert "signature" not in str(refusal.value)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad", "gopher://x"]
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_redirects_to_something_else_than_http_are_not_followed(method, location, hub, repo):
    hub.fail(method, "hub:", *[Fault(status=302, headers={"Location": location})] * 9)
    with pytest.raises(ServerError, match="not followed"):
        repo.file("config.json").open()


def test_redirects_from_https_to_http_are_not_followed():
    with pytest.raises(ServerError, match="must be a valid URL with https"):
        transport._redirected("https://hub/x", "http://hub/x")
    assert transport._redirected("https://hub/x?a", "//cdn/y") == "https://cdn/y"
    assert transport._redirected("https://hub/x?a", "/y") == "https://hub/y"


def test_endless_redirects_end(hub, repo):
    round_trip = Fault(status=307, headers={"Location": f"/{NAME}/resolve/main/config.json"})
    hub.fail("HEAD", "", *[round_trip] * 1000)
    with pytest.raises(ServerError, match="more than 10 redirects"):
        repo.file("config.json").open()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 90_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: header\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-Repo-Commit\r\n: \r\nETag:\r\n\xff\xfe: \0\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
    ],
    ids=["long header", "many headers", "malformed", "status", "version", "empty", "no http"],
)
def test_answers_that_are_no_http_are_errors(raw, hub, repo):
    hub.fail("HEAD", "", *[Fault(raw=raw)] * transport.TRIES)
    with pytest.raises((ServerError, NetworkError)):
        repo.file("config.json").open()
    assert repo.file("config.json").path is None


@pytest.mark.parametrize("name", ["../x", "a/b/c", "a\\b", "", "..", "a\0", "/x", "x/"])
def test_names_that_are_no_repositories_are_refused(name, hub):
    with pytest.raises(ValueError, match="repository"):
        HfHubRepository(name)
    assert hub.seen == []


@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "a\\b", "a\0b", "", "a//b", "./a"])
def test_paths_cannot_leave_the_cache(path, hub, repo):
    with pytest.raises(ValueError, match="not a relative path"):
        repo.file(path)
    with pytest.raises(ValueError, match="not a relative path"):
        HfHubRepository(NAME, revision=path)
    with pytest.raises(ValueError, match="not a relative path"), repo.transaction() as writing:
        writing.open(path, "wb")
    assert hub.seen == []


def test_hostile_shard_names_are_not_fetched(hub, cache):
    from curated_transformers.checkpoint.index import load_checkpoint

    index = b'{"weight_map": {"a": "../../../../etc/passwd"}}'
    hub.add(NAME, {"model.safetensors.index.json": index})
    with pytest.raises(ValueError, match="not a relative path"):
        load_checkpoint(HfHubRepository(NAME))
    assert all("passwd" not in seen.path for seen in hub.seen)


def test_the_proxy_of_an_https_hub_sees_no_token(hub, repo, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", hub.url)
    with pytest.raises(NetworkError):
        repo.file("config.json").open()
    assert {seen.method for seen in hub.seen} == {"CONNECT"}
    assert hub.seen[0].path == "hub.invalid:443"
    assert tokens(hub, "hub") == {None}


def test_proxies_are_used_unless_the_host_is_excepted(hub, repo, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(NetworkError):
        repo.file("config.json").open()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert HfHubRepository(NAME).json_file("config.json") == {}
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # a client's header in CGI programs
    assert HfHubRepository(NAME).file("model.bin").exists()


def test_a_commit_in_a_ref_cannot_leave_the_cache(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reference = cache / "models--org--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("../../..")
    with pytest.raises(ValueError, match="not a relative path"):
        HfHubRepository(NAME).file("config.json")
    reference.write_text(COMMIT)
    assert not HfHubRepository(NAME).file("config.json").exists()
