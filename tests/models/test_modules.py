"""What users do with a model besides calling it: load it from anywhere, look at its parameters,
move and convert it."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors

from curated_transformers import _core
from curated_transformers.models import (
    AutoEncoder,
    BERTEncoder,
    GPTNeoXCausalLM,
    LlamaCausalLM,
    LlamaDecoder,
)
from curated_transformers.repository import LocalRepository, Repository, RepositoryFile

IDS = np.array([[3, 1, 4, 1, 5]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def model(folder):
    return LlamaCausalLM.from_path(folder)


def logits(model) -> np.ndarray:
    return np.asarray(model(IDS).logits)


class MemoryFile(RepositoryFile):
    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def open(self, mode="rb", encoding=None):
        if self.data is None:
            raise FileNotFoundError("there is no such file")
        return io.BytesIO(self.data) if "b" in mode else io.StringIO(self.data.decode(encoding))

    @property
    def path(self):
        return None

    def exists(self):
        return self.data is not None


class MemoryRepository(Repository):
    """A repository of somebody else's: only the four documented methods."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}

    def file(self, path):
        return MemoryFile(self.files.get(path))

    def json_file(self, path):
        return json.loads(self.files[path])

    def pretty_path(self, path=None):
        return f"memory:{path or ''}"

    def transaction(self):
        raise NotImplementedError


# ---- loading ----


def test_a_repository_of_any_kind_gives_the_same_model(folder, model):
    np.testing.assert_array_equal(
        logits(LlamaCausalLM.from_repo(repo=MemoryRepository(folder))), logits(model)
    )
    np.testing.assert_array_equal(
        logits(LlamaCausalLM.from_repo(repo=LocalRepository(folder))), logits(model)
    )


def test_loading_in_place_returns_the_model(folder, model):
    empty = LlamaCausalLM(model.config)
    assert empty.from_repo_(repo=LocalRepository(folder)) is empty
    np.testing.assert_array_equal(logits(empty), logits(model))


def test_a_model_of_a_configuration_says_that_it_has_no_weights(folder):
    hf_config = json.loads((folder / "config.json").read_text())
    model = LlamaCausalLM.from_hf_config(hf_config=hf_config, device="cpu")
    for use in (lambda: model(IDS), model.state_dict, lambda: next(model.parameters())):
        with pytest.raises(RuntimeError, match="no weights yet"):
            use()


def test_a_failed_load_leaves_the_model_as_it_was(folder, model, tmp_path):
    before = logits(model)
    other = small_models.llama(tmp_path, width=16)
    with pytest.raises(ValueError, match="Expected size of replacement"):
        model.from_repo_(repo=LocalRepository(other))
    np.testing.assert_array_equal(logits(model), before)


def test_another_architecture_is_refused_by_name(folder):
    with pytest.raises(ValueError, match="`llama` is not one of GPTNeoXCausalLM's: gpt_neox"):
        GPTNeoXCausalLM.from_path(folder)


def test_a_missing_config_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "misspelt"):
        with pytest.raises(FileNotFoundError, match="Cannot load config for the model at"):
            LlamaCausalLM.from_path(folder)
        with pytest.raises(FileNotFoundError, match="Cannot load config for the model at"):
            AutoEncoder.from_path(folder)


def test_quantized_checkpoints_are_refused_by_their_method(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(ValueError, match="gptq"):
        LlamaCausalLM.config_from_hf(config)


@pytest.mark.parametrize(
    "dtype", ["float16", np.float16, np.dtype("float16"), "torch.float16", "half"]
)
def test_dtype_converts_whatever_its_kind(folder, dtype):
    assert LlamaCausalLM.from_path(folder, dtype=dtype).dtype == "float16"


@pytest.mark.parametrize("dtype", ["int8", "q4_0", "float64", "fp16", np.int64, np.float64])
def test_a_dtype_that_models_cannot_have_is_refused_with_those_they_can(folder, model, dtype):
    message = "Invalid torch dtype `.*`; supported: float32, float16, bfloat16$"
    with pytest.raises(ValueError, match=message):
        LlamaCausalLM.from_path(folder, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        model.to(dtype=dtype)
    if not isinstance(dtype, str):
        with pytest.raises(ValueError, match=message):
            model.to(dtype)
    assert model.dtype == "float32"


def test_devices_that_are_not_there_are_refused(folder):
    with pytest.raises((RuntimeError, ValueError, OSError, NotImplementedError), match="cuda"):
        LlamaCausalLM.from_path(folder, device="cuda:0")


# ---- parameters ----

NAMES = {
    "decoder.embeddings.piece_embeddings.weight",
    "decoder.output_layer_norm.weight",
    "output_embeddings.weight",
    *(
        f"decoder.layers.{i}.{name}.weight"
        for i in range(2)
        for name in (
            "mha.query",
            "mha.key",
            "mha.value",
            "mha.output",
            "ffn.gate",
            "ffn.intermediate",
            "ffn.output",
            "attn_input_layer_norm",
            "ffn_input_layer_norm",
        )
    ),
}


def test_the_state_has_the_documented_names_and_the_values_of_the_checkpoint(folder, model):
    state = model.state_dict()
    assert set(state) == NAMES
    assert dict(model.named_parameters()).keys() == state.keys()
    assert [p.shape for p in model.parameters()] == [t.shape for t in state.values()]
    stored = small_models.read_weights(folder)
    np.testing.assert_array_equal(
        state["decoder.layers.1.ffn.intermediate.weight"],
        stored["model.layers.1.mlp.up_proj.weight"],
    )
    np.testing.assert_array_equal(state["output_embeddings.weight"], stored["lm_head.weight"])


def test_a_decoder_has_the_same_names_without_the_prefix(folder):
    state = LlamaDecoder.from_path(folder).state_dict()
    assert set(state) == {
        name.removeprefix("decoder.") for name in NAMES if not name.startswith("output_embeddings")
    }


def test_the_state_of_one_model_is_another_model(model):
    other = LlamaCausalLM(model.config)
    other.load_state_dict({name: np.asarray(t) for name, t in model.state_dict().items()})
    np.testing.assert_array_equal(logits(other), logits(model))


def test_names_go_to_hugging_faces_and_back(folder):
    stored = small_models.read_weights(folder)
    curated = LlamaCausalLM.state_dict_from_hf(stored)
    assert set(curated) == NAMES
    assert set(LlamaCausalLM.state_dict_to_hf(curated)) == set(stored)
    assert set(LlamaDecoder.state_dict_to_hf(LlamaDecoder.state_dict_from_hf(stored))) == {
        name.removeprefix("model.") for name in stored
    }
    unknown = {"something.else": 1, "model.layers.0.self_attn.rotary_emb.inv_freq": 2}
    assert LlamaCausalLM.state_dict_from_hf(unknown) == unknown


def test_an_unknown_name_in_a_state_is_refused(model):
    state = {**model.state_dict(), "decoder.layers.0.mha.extra.weight": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"decoder\.layers\.0\.mha\.extra\.weight"):
        LlamaCausalLM(model.config).load_state_dict(state)


# ---- what torch's modules have ----


def test_evaluation_is_the_only_mode(model):
    assert model.eval() is model
    assert model.train(False) is model
    assert not model.training
    with pytest.raises(NotImplementedError, match="inference only"):
        model.train()


def test_to_converts_in_place_and_back_without_loss(model):
    before = logits(model)
    assert model.to("float16") is model
    assert model.dtype == "float16"
    assert model(IDS).logits.dtype == "float16"
    assert {tensor.dtype for tensor in model.parameters()} == {"float16"}
    model.to(dtype=np.float32).to("cpu")
    np.testing.assert_array_equal(logits(model), before)


def test_converting_a_model_leaves_the_configuration_it_shares(model):
    other = LlamaCausalLM(model.config)
    other.load_state_dict(model.state_dict())
    other.to("bfloat16")
    assert model.dtype == model.config.dtype == "float32"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_compute_the_same_and_are_converted_alone(model, duplicate):
    before = logits(model)
    other = duplicate(model)
    assert type(other) is LlamaCausalLM
    np.testing.assert_array_equal(logits(other), before)
    other.to("bfloat16")
    assert (model.dtype, other.dtype) == ("float32", "bfloat16")
    np.testing.assert_array_equal(logits(model), before)
    assert copy.deepcopy(model).config is not model.config


def test_a_pickled_model_is_refused_with_advice(model):
    for thing in (model, {"model": model}):
        with pytest.raises(TypeError, match=r"LlamaCausalLM cannot be pickled; load it with from_"):
            pickle.dumps(thing)


def test_to_another_device_is_refused(model):
    with pytest.raises(NotImplementedError, match="cuda"):
        model.to("cuda")


def test_encoders_say_how_long_a_sequence_may_be(tmp_path):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path, positions=40))
    assert encoder.max_seq_len == 40


def test_a_repr_says_what_the_model_is(model):
    assert repr(model) == "LlamaCausalLM(2 layers, width 32, 4 heads, 50 pieces, float32, cpu)"


def test_head_and_embeddings_may_be_tied_by_leaving_the_head_out(folder, tmp_path):
    weights = small_models.read_weights(folder)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    untied, tied = tmp_path / "untied", tmp_path / "tied"
    for path, left_out in ((untied, ()), (tied, ("lm_head.weight",))):
        path.mkdir()
        (path / "config.json").write_bytes((folder / "config.json").read_bytes())
        kept = {name: value for name, value in weights.items() if name not in left_out}
        write_safetensors(path / "model.safetensors", kept)
    np.testing.assert_array_equal(
        logits(LlamaCausalLM.from_path(tied)), logits(LlamaCausalLM.from_path(untied))
    )


def test_the_core_counts_what_is_missing():
    spec = {"hidden_width": 8, "n_layers": 1, "n_pieces": 5, "n_heads": 2, "intermediate_width": 8}
    missing = _core.Model(spec).missing()
    assert ("piece_embeddings.weight", -1) in missing
    assert ("ffn_down.weight", 0) in missing
    assert all(role in _core.MODEL_ROLES + _core.LAYER_ROLES for role, _ in missing)


def resident_kib(path: Path) -> int:
    """How much of a mapped file is in this process's memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.endswith(str(path)):
            inside = True
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
            inside = False
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_an_encoder_keeps_one_copy_of_its_weights_in_memory(tmp_path):
    path = small_models.bert(tmp_path, width=128, layers=8) / "model.safetensors"
    encoder = BERTEncoder.from_path(tmp_path)
    assert resident_kib(path) < path.stat().st_size / 1024 / 4
    for tensor in encoder.parameters():  # the file is still there to be read
        np.asarray(tensor).sum()
    assert resident_kib(path) > path.stat().st_size / 1024 / 2
