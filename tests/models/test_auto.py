"""Which class loads a model, and how other packages add theirs."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap

import numpy as np
import pytest
import small_models

from curated_transformers.models import (
    AutoCausalLM,
    AutoDecoder,
    AutoEncoder,
    BERTEncoder,
    LlamaCausalLM,
    LlamaDecoder,
)
from curated_transformers.registry import registry
from curated_transformers.repository import LocalRepository

IDS = np.array([[3, 1, 4, 1, 5]])

#: Another package's architecture: Llama's program without its gate, under a name of its own.
PACKAGE = '''
from curated_transformers.models.llama.decoder import Llama
from curated_transformers.models.transformer import TransformerCausalLM

class Llanura(Llama):
    model_types = ("llanura",)
    hf_label = "Llanura"
    hf_class = "Llanura"

class LlanuraCausalLM(Llanura, TransformerCausalLM):
    """A language model."""
'''


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return small_models.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def other_model(llama, tmp_path):
    config = json.loads((llama / "config.json").read_text()) | {"model_type": "llanura"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(llama / "model.safetensors")
    return tmp_path


def test_a_folder_of_gguf_files_is_told_how_to_load_one(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        FileNotFoundError, match=f"load one by its path, as `{tmp_path}/small.gguf`"
    ):
        AutoCausalLM.from_path(tmp_path)


def test_a_config_without_a_model_type_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json has no model_type\. Registered models"):
        AutoEncoder.from_path(tmp_path)


def install(folder, monkeypatch, name: str, code: str, entry_points: str) -> None:
    """A package as installers leave it: a module, and metadata with entry points."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_model_type_decides(llama, tmp_path):
    assert type(AutoCausalLM.from_path(llama)) is LlamaCausalLM
    assert type(AutoDecoder.from_path(llama)) is LlamaDecoder
    assert type(AutoCausalLM.from_repo(repo=LocalRepository(llama))) is LlamaCausalLM
    assert type(AutoEncoder.from_path(small_models.bert(tmp_path))) is BERTEncoder


def test_architectures_decide_where_there_is_no_model_type(llama, other_model):
    config = json.loads((llama / "config.json").read_text())
    del config["model_type"]
    config["architectures"] = ["LlamaForCausalLM"]
    (other_model / "config.json").write_text(json.dumps(config))
    assert type(AutoCausalLM.from_path(other_model)) is LlamaCausalLM
    config["architectures"] = ["LlamaStrange", 3]
    (other_model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Unsupported model type for `AutoCausalLM`"):
        AutoCausalLM.from_path(other_model)


def test_an_unknown_type_lists_what_is_registered(other_model, llama):
    with pytest.raises(ValueError, match="Unsupported model type for `AutoCausalLM`") as error:
        AutoCausalLM.from_path(other_model)
    assert "llanura" in str(error.value)
    names = str(error.value).partition("Registered models: ")[2].split(", ")
    assert names == sorted(names)
    assert "curated-transformers.LlamaCausalLM" in names
    with pytest.raises(ValueError, match="Unsupported model type for `AutoEncoder`"):
        AutoEncoder.from_path(llama)  # a decoder


def test_another_package_adds_an_architecture_by_an_entry_point(
    other_model, llama, tmp_path_factory, monkeypatch
):
    install(
        tmp_path_factory.mktemp("site"),
        monkeypatch,
        "llanura_models",
        PACKAGE,
        """\
        [curated_transformers_causal_lms]
        llanura.LlanuraCausalLM = llanura_models:LlanuraCausalLM
        """,
    )
    model = AutoCausalLM.from_path(other_model)
    assert type(model).__name__ == "LlanuraCausalLM"
    np.testing.assert_array_equal(
        np.asarray(model(IDS).logits), np.asarray(LlamaCausalLM.from_path(llama)(IDS).logits)
    )


def test_a_program_registers_a_class_of_its_own(other_model, monkeypatch):
    monkeypatch.setattr(registry.causal_lms, "_registered", {})
    namespace: dict = {}
    exec(PACKAGE, namespace)
    found = registry.causal_lms.register("mine")(namespace["LlanuraCausalLM"])
    assert type(AutoCausalLM.from_path(other_model)) is found
    assert "mine" in registry.causal_lms.names()


@pytest.mark.parametrize(
    ("target", "warning"),
    [
        ("llanura_broken:NotAModel", "cannot load from Hugging Face Hub"),
        ("curated_transformers.models:BERTEncoder", "cannot be used by `AutoCausalLM`"),
        ("llanura_broken:Missing", "could not be imported"),
        ("no_such_module:Missing", "could not be imported"),
    ],
)
def test_entries_that_are_of_no_use_are_skipped_with_a_warning(
    llama, tmp_path_factory, monkeypatch, target, warning
):
    install(
        tmp_path_factory.mktemp("site"),
        monkeypatch,
        "llanura_broken",
        "class NotAModel: pass\n",
        f"[curated_transformers_causal_lms]\nbroken = {target}\n",
    )
    with pytest.warns(UserWarning, match=f"`broken`.*{warning}"):
        assert type(AutoCausalLM.from_path(llama)) is LlamaCausalLM
