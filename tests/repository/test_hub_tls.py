"""A Hub with TLS, whose certificate only this folder has."""

from __future__ import annotations

import pytest
from hub_server import CERTIFICATE, Fault, Hub

from curated_transformers.repository import HfHubRepository, NetworkError, ServerError, environment

NAME = "org/model"


@pytest.fixture
def hub(cache, monkeypatch):
    server = Hub(tls=True)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.add(NAME, {"config.json": b"{}", "model.bin": b"\0" * 10}, large={"model.bin"})
    yield server
    server.stop()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "CURL_CA_BUNDLE"])
def test_certificates_that_the_environment_names_are_trusted(variable, hub, monkeypatch):
    monkeypatch.setenv(variable, str(CERTIFICATE))
    with HfHubRepository(NAME).file("model.bin").open() as file:
        assert file.read() == b"\0" * 10


def test_other_certificates_are_not_trusted(hub):
    with pytest.raises(NetworkError, match="certificate"):
        HfHubRepository(NAME).file("config.json").open()
    assert hub.seen == []


def test_a_file_of_certificates_that_does_not_exist_is_an_error(hub, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/certificates.pem")
    with pytest.raises(NetworkError, match=r"/nonexistent/certificates\.pem"):
        HfHubRepository(NAME).file("config.json").open()


def test_the_storage_is_not_reached_without_tls(hub, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    plain = Fault(headers={"Location": hub.storage_url.replace("https:", "http:")})
    hub.fail("GET", "hub:", plain)
    with pytest.raises(ServerError, match="not followed"):
        HfHubRepository(NAME).file("model.bin").open()


def test_the_order_in_which_certificates_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "certifi", None)  # not installed
    there = tmp_path / "there.pem"
    there.touch()
    monkeypatch.setattr(environment, "CERTIFICATES", (str(tmp_path / "none.pem"), str(there)))
    for variable in ("SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    assert environment.ca_file(str(there)) is None  # libcurl knows best
    assert environment.ca_file("/nonexistent.pem") == str(there)
    assert environment.ca_file(None) == str(there)
    certifi = type("certifi", (), {"where": staticmethod(lambda: "certifi.pem")})
    monkeypatch.setitem(__import__("sys").modules, "certifi", certifi)
    assert environment.ca_file(str(there)) == "certifi.pem"
    monkeypatch.setenv("CURL_CA_BUNDLE", "curl.pem")
    assert environment.ca_file(str(there)) == "curl.pem"
    monkeypatch.setenv("SSL_CERT_FILE", "ssl.pem")
    assert environment.ca_file(str(there)) == "ssl.pem"
