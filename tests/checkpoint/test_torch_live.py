"""Files of torch as it runs, of everything that a file can hold and of models."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make oracle` installs torch and transformers")

import torch
from checkpoint_writers import write_safetensors
from models.comparison import load, results, write_config
from models.variants import VARIANTS, piece_ids, random_weights, stored_name
from oracles.random_models import build
from oracles.torch_files import FORMS, as_array, save, tensors
from safetensors.torch import load_file

from curated_transformers.checkpoint import TorchFile

pytestmark = pytest.mark.slow
IDS = piece_ids(3, 1, 80)
FORM = pytest.mark.parametrize("form", FORMS)


def outputs(model):
    hidden, logits = results(model(IDS))
    return [hidden] if logits is None else [hidden, logits]


def assert_equal(model, other):
    for ours, expected in zip(outputs(model), outputs(other), strict=True):
        np.testing.assert_array_equal(ours, expected)


class Saved:
    """A variant's folder with safetensors as transformers writes them, its state, and ours."""

    def __init__(self, variant, folder):
        self.variant, self.folder = variant, folder
        reference = build(variant)
        reference.save_pretrained(folder)
        if not variant.as_saved:
            parameters = {stored_name(variant, n): p for n, p in reference.named_parameters()}
            weights = {n: random_weights(n, tuple(p.shape)) for n, p in parameters.items()}
            write_safetensors(folder / "model.safetensors", weights)
        self.state = load_file(folder / "model.safetensors")
        self.model = load(variant, folder)

    def from_torch(self, folder, state, form):
        shutil.copy(self.folder / "config.json", folder)
        save(state, folder / "pytorch_model.bin", form)
        return load(self.variant, folder)


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    return Saved(request.param, tmp_path_factory.mktemp(request.param.architecture))


PLAIN = [variant for variant in VARIANTS if variant.names == "plain" and variant.golden]
CASES = [(variant, "zip") for variant in VARIANTS]
CASES += [(variant, form) for variant in PLAIN for form in FORMS if form != "zip"]
SOME = pytest.mark.parametrize("saved", PLAIN, ids=str, indirect=True)


@FORM
@pytest.mark.parametrize("rows", [1, 2, 3, 17, 64])
def test_values_are_those_that_torch_loads(form, rows, tmp_path):
    path = tmp_path / "x.bin"
    save(tensors(seed=rows, rows=rows), path, form)
    expected = torch.load(path, weights_only=False, map_location="cpu")  # our own, of two lines ago
    ours = TorchFile(path)
    assert list(ours) == list(expected)
    for name in expected.keys() - {"int16"}:
        values = as_array(expected[name].float() if name.endswith("64") else expected[name])
        mine = ours[name].numpy().astype(np.float32) if name == "int64" else ours[name].numpy()
        np.testing.assert_array_equal(mine, values, err_msg=name)


@pytest.mark.parametrize(("saved", "form"), CASES, ids=str, indirect=["saved"])
def test_a_model_is_that_of_its_safetensors(saved, form, tmp_path):
    assert_equal(saved.from_torch(tmp_path, saved.state, form), saved.model)


@SOME
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_shards_are_the_whole(saved, form, tmp_path):
    shutil.copy(saved.folder / "config.json", tmp_path)
    weight_map, names = {}, list(saved.state)
    for number in range(3):
        part = {name: saved.state[name] for name in names[number::3]}
        file = f"pytorch_model-{number + 1:05}-of-00003.bin"
        save(part, tmp_path / file, form)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_equal(load(saved.variant, tmp_path), saved.model)


@SOME
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_matrices_that_were_saved_transposed(saved, form, tmp_path):
    turned = {
        name: one.t().contiguous().t() if one.ndim == 2 else one
        for name, one in saved.state.items()
    }
    assert_equal(saved.from_torch(tmp_path, turned, form), saved.model)


@SOME
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_of_one_storage(saved, form, tmp_path):
    flat = torch.cat([one.reshape(-1) for one in saved.state.values()])
    parts = flat.split([one.numel() for one in saved.state.values()])
    state = {
        name: part.reshape(one.shape)
        for (name, one), part in zip(saved.state.items(), parts, strict=True)
    }
    assert_equal(saved.from_torch(tmp_path, state, form), saved.model)
    assert (tmp_path / "pytorch_model.bin").stat().st_size < 2 * flat.nbytes


@SOME
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types(saved, dtype, tmp_path):
    """They become those of config.json, float32: exactly, from these values."""
    rounded = {name: one.half().bfloat16().to(dtype) for name, one in saved.state.items()}
    if dtype == torch.float16:
        rounded = {name: one.half() for name, one in saved.state.items()}
    widened = {name: one.float() for name, one in rounded.items()}
    for folder in ("other", "same"):
        (tmp_path / folder).mkdir()
    other = saved.from_torch(tmp_path / "other", rounded, "zip")
    assert_equal(other, saved.from_torch(tmp_path / "same", widened, "zip"))


def test_the_state_of_a_model_with_a_tied_head(tmp_path):
    (variant,) = [v for v in VARIANTS if v.architecture == "qwen2" and v.golden][:1]
    tied = {**variant.config, "tie_word_embeddings": True}
    variant = dataclasses.replace(variant, config=tied)
    reference = build(variant)
    state = reference.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    reference.save_pretrained(tmp_path / "a")
    for form in ("zip", "legacy"):
        (tmp_path / form).mkdir()
        write_config(variant, tmp_path / form)
        save(state, tmp_path / form / "pytorch_model.bin", form)
        assert_equal(load(variant, tmp_path / form), load(variant, tmp_path / "a"))


def test_a_checkpoint_of_a_training_run_is_refused_with_its_keys(tmp_path):
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    state = {"epoch": 3, "model": layer.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "x.bin")
    with pytest.raises(ValueError, match="its keys are epoch, model, optimizer"):
        TorchFile(tmp_path / "x.bin")


def test_a_pickled_module_and_torchscript_are_refused_by_name(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.bin")
    with pytest.raises(ValueError, match=r"asks for `torch\.nn\.modules\.linear\.Linear`"):
        TorchFile(tmp_path / "x.bin")
