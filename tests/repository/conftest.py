"""The Hub that the tests talk to, an empty cache, and an environment that says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub

from curated_transformers.repository import transport

OTHERS = (
    "HF_HUB_OFFLINE HF_TOKEN HF_TOKEN_PATH HF_HUB_DISABLE_IMPLICIT_TOKEN HF_HUB_ETAG_TIMEOUT "
    "HF_HUB_DOWNLOAD_TIMEOUT HF_HUB_DISABLE_SYMLINKS_WARNING XDG_CACHE_HOME SSL_CERT_FILE "
    "CURL_CA_BUNDLE http_proxy https_proxy HTTPS_PROXY HTTP_PROXY all_proxy ALL_PROXY no_proxy "
    "NO_PROXY"
).split()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no Hub, no token, no waiting between tries."""
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()
