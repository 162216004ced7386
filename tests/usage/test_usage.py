"""The code of the usage page runs as it stands, against a Hub on loopback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_models
from byte_tokenizer import byte_tokenizer

from curated_transformers import Device
from curated_transformers.generation import GreedyGeneratorConfig

BLOCKS = Path(__file__).parent / "blocks"

#: What the page writes, and what somebody without torch writes in its place.
WITHOUT_TORCH = {
    "import torch\n": "",
    'torch.device("cuda", index=0)': '"cuda:0"',
    'torch.device("cpu")': '"cpu"',
    "torch.bfloat16": '"bfloat16"',
    "with torch.no_grad():": "if True:",
}


@pytest.fixture
def models(hub, tmp_path):
    """Small models under the names that the page uses."""
    engine = byte_tokenizer(special=["### Instruction:", "### Response:", "### End"]).tokenizer
    tokenizer = {"tokenizer.json": engine.to_str().encode()}
    tokenizer["tokenizer_config.json"] = b'{"eos_token": "<eos>"}'
    for name, folder in (
        ("bert-base-uncased", small_models.bert(tmp_path / "bert", pieces=260, positions=128)),
        (
            "databricks/dolly-v2-3b",
            small_models.gpt_neox(tmp_path / "neox", pieces=260, positions=768),
        ),
    ):
        hub.add(name, {path.name: path.read_bytes() for path in folder.iterdir()} | tokenizer)
    return hub


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["bare", "torch"])
def run(request, models):
    """Runs a block, with torch or without it, and returns its names; ``device`` stands for CUDA."""
    if request.param:
        pytest.importorskip("torch", reason="`make oracle` installs torch")

    def run(name: str, *, device: str | None = None) -> dict:
        code = (BLOCKS / f"{name}.py").read_text()
        if device is not None:
            code = code.replace('"cuda", index=0', f'"{device}"')
        for old, new in () if request.param else WITHOUT_TORCH.items():
            code = code.replace(old, new)
        namespace: dict = {}
        exec(compile(code, name, "exec"), namespace)
        return namespace

    return run


def test_encoding(run):
    names = run("encoding")
    hidden = names["last_hidden_repr"]
    ids = np.asarray(names["ids"])
    assert hidden.shape == (*ids.shape, 32)
    again = names["encoder"](ids).last_hidden_layer_state
    np.testing.assert_array_equal(np.asarray(hidden), np.asarray(again))


def test_loading_a_tokenizer(run):
    assert run("tokenizer")["tokenizer"](["a"]).ids == [[ord("a")]]


def test_loading_models_of_a_known_and_of_any_architecture(run):
    names = run("loading", device="cpu")
    assert type(names["encoder"]).__name__ == "BERTEncoder"
    assert type(names["decoder"]).__name__ == "GPTNeoXDecoder"
    names = run("auto_models")
    assert type(names["encoder"]).__name__ == "BERTEncoder"
    assert type(names["decoder"]).__name__ == "GPTNeoXDecoder"
    assert type(names["lm"]).__name__ == "GPTNeoXCausalLM"


def test_generating(run, capsys):
    names = run("generating", device="cpu")
    assert type(names["generator"]).__name__ == "DollyV2Generator"
    for outputs in (names["sample_outputs"], names["greedy_outputs"]):
        assert len(outputs) == len(names["prompts"])
        assert all(isinstance(text, str) for text in outputs)
    assert "Greedy outputs: [" in capsys.readouterr().out


HAS_CUDA = Device("cuda").is_available()


@pytest.mark.skipif(not HAS_CUDA, reason="there is no CUDA device")
def test_what_the_page_does_on_a_device(run, capsys):
    run("loading")
    run("generating")
    on_device = capsys.readouterr().out.splitlines()
    run("generating", device="cpu")
    on_cpu = capsys.readouterr().out.splitlines()
    assert on_device[-1] == on_cpu[-1]
    assert on_device[-1].startswith("Greedy outputs: [")
    names = run("quantizing")
    for name, format in (("generator_8bit", "llm_int8"), ("generator_4bit", "fp4")):
        model = names[name].generator.inner.model
        assert model.device == "cuda:0"
        assert f"8 matrices in {format}" in repr(model)


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["generating", "loading", "quantizing"])
def test_a_device_that_is_not_there_is_one_clear_error(run, name):
    with pytest.raises(NotImplementedError, match='device "cuda" is not available'):
        run(name)


def test_quantizing(run):
    names = run("quantizing", device="cpu")
    for name, format in (("generator_8bit", "llm_int8"), ("generator_4bit", "fp4")):
        assert type(names[name]).__name__ == "DollyV2Generator"
        assert f"8 matrices in {format}" in repr(names[name].generator.inner.model)
        (text,) = names[name](["A prompt"], GreedyGeneratorConfig(max_generated_pieces=5))
        assert isinstance(text, str)
