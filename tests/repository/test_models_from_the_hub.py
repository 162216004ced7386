"""from_hf_hub from beginning to end: a model that is on the Hub, and then in the cache only."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors
from hub_server import Fault

from curated_transformers.generation import AutoGenerator
from curated_transformers.models import AutoCausalLM, LlamaDecoder
from curated_transformers.repository import (
    FsspecRepository,
    GatedRepositoryError,
    HfHubRepository,
    NotCachedError,
    ServerError,
    transport,
)
from curated_transformers.tokenizers import AutoTokenizer

NAME = "org/llama"
IDS = np.array([[1, 2, 3, 4]])


@pytest.fixture
def folder(tmp_path):
    return small_models.llama(tmp_path / "llama")


@pytest.fixture
def remote(hub, folder):
    """The model in two shards, beside files that nobody needs."""
    weights = small_models.read_weights(folder)
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    files = {"config.json": (folder / "config.json").read_bytes(), "README.md": b"# Llama"}
    for shard, part in shards.items():
        write_safetensors(folder / shard, {name: weights[name] for name in part})
        files[shard] = (folder / shard).read_bytes()
    index = {name: shard for shard, part in shards.items() for name in part}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    return hub.add(NAME, files, large=set(shards))


def logits(model):
    return np.asarray(model(IDS).logits)


def test_a_model_is_loaded_from_the_hub_and_then_from_the_cache(hub, remote, folder, monkeypatch):
    expected = logits(AutoCausalLM.from_path(folder))
    model = AutoCausalLM.from_hf_hub(name=NAME)
    np.testing.assert_array_equal(logits(model), expected)
    fetched = [seen.path.rpartition("/")[2] for seen in hub.requests("GET", "/resolve/")]
    assert sorted(fetched) == sorted(set(remote.files) - {"README.md"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.seen.clear()
    np.testing.assert_array_equal(logits(AutoCausalLM.from_hf_hub(name=NAME)), expected)
    assert hub.seen == []


def test_a_model_that_is_only_to_be_cached(hub, remote, monkeypatch):
    LlamaDecoder.from_hf_hub_to_cache(name=NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    LlamaDecoder.from_hf_hub(name=NAME)


def test_the_reason_why_a_model_cannot_be_loaded_is_told(hub, remote):
    remote.gated = True
    with pytest.raises(GatedRepositoryError, match=f"Cannot load .*at {hub.url}/{NAME}"):
        AutoCausalLM.from_hf_hub(name=NAME)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "org/lama"}, "has no repository `org/lama`; if it is private, set HF_TOKEN"),
        ({"name": NAME, "revision": "v9"}, f"`{NAME}` has no revision `v9`"),
    ],
)
def test_a_misspelt_model_is_told_from_everywhere(hub, remote, arguments, reason):
    with pytest.raises(FileNotFoundError, match=f"Cannot load config .*{reason}"):
        AutoCausalLM.from_hf_hub(**arguments)
    with pytest.raises(ValueError, match=f"Cannot infer tokenizer .*{reason}"):
        AutoTokenizer.from_hf_hub(**arguments)
    with pytest.raises(FileNotFoundError, match=reason):
        AutoGenerator.from_hf_hub(**arguments)


def test_offline_is_told_from_everywhere(cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotCachedError, match=r"Cannot load config .*HF_HUB_OFFLINE is set"):
        AutoCausalLM.from_hf_hub(name=NAME)
    with pytest.raises(ValueError, match=r"Cannot infer tokenizer .*HF_HUB_OFFLINE is set"):
        AutoTokenizer.from_hf_hub(name=NAME)


def test_a_failure_of_the_hub_does_not_choose_another_checkpoint(hub, folder):
    """Not even one that is cached already: the model's authors prefer the other."""
    torch = {"config.json": (folder / "config.json").read_bytes(), "pytorch_model.bin": b"other"}
    hub.add(NAME, torch | {"model.safetensors": (folder / "model.safetensors").read_bytes()})
    HfHubRepository(NAME).file("pytorch_model.bin").open().close()
    for name in ("model.safetensors", "model.safetensors.index.json"):
        hub.fail("HEAD", name, *[Fault(status=500)] * transport.TRIES)
    with pytest.raises(ServerError, match="500"):
        AutoCausalLM.from_hf_hub(name=NAME)
    hub.recover()
    expected = logits(AutoCausalLM.from_path(folder))
    np.testing.assert_array_equal(logits(AutoCausalLM.from_hf_hub(name=NAME)), expected)


def test_a_model_is_loaded_through_fsspec(folder):
    local = pytest.importorskip("fsspec.implementations.local")
    files = local.LocalFileSystem()
    expected = logits(AutoCausalLM.from_path(folder))
    model = AutoCausalLM.from_fsspec(fs=files, model_path=str(folder))
    np.testing.assert_array_equal(logits(model), expected)
    model = AutoCausalLM.from_repo(repo=FsspecRepository(files, str(folder)))
    np.testing.assert_array_equal(logits(model), expected)
