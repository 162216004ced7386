"""Models whose linear layers are quantized while they are loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import fsspec
import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors
from memory_limit import SANITIZED
from models.comparison import distance, golden_weights, load, results, write_config
from models.variants import VARIANTS, piece_ids
from oracles.bitsandbytes_formats import int8_values, quantize_4bit, quantize_int8

from curated_transformers.models import (
    AutoCausalLM,
    AutoDecoder,
    AutoEncoder,
    FalconCausalLM,
    GPTNeoXCausalLM,
    LlamaCausalLM,
    MPTCausalLM,
)
from curated_transformers.quantization import Quantizable, prepare_module_for_quantization
from curated_transformers.quantization.bnb import BitsAndBytesConfig, prepare_for_quantization

IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
INT8 = BitsAndBytesConfig.for_8bit()
NF4 = BitsAndBytesConfig.for_4bit("nf4", "float32", double_quantization=False)
FP4 = BitsAndBytesConfig.for_4bit("fp4", "float32")
FORMATS = ("llm_int8", "nf4", "fp4")
FIRST = {}
for variant in VARIANTS:
    if variant.golden:
        FIRST.setdefault(variant.architecture, variant)


@pytest.fixture
def folder(tmp_path):
    return small_models.llama(tmp_path / "model", width=64)


@pytest.fixture
def checkpoint(tmp_path, request):
    """A variant's checkpoint, and the names of the matrices that are quantized."""
    variant = request.param
    write_safetensors(tmp_path / "model.safetensors", golden_weights(variant))
    write_config(variant, tmp_path)
    return variant, tmp_path


ARCHITECTURES = pytest.mark.parametrize("checkpoint", FIRST.values(), ids=str, indirect=True)


def is_linear(name):
    """By the names that this package gives its modules."""
    module = name.removesuffix(".weight")
    return name.endswith(".weight") and module.endswith(
        (
            *("mha.query", "mha.key", "mha.value", "mha.input", "mha.output"),
            *("ffn.gate", "ffn.intermediate", "ffn.output", "ffn.gate_intermediate"),
            "embeddings.projection",
        )
    )


@pytest.mark.parametrize("config", [INT8, NF4, FP4], ids=FORMATS)
@ARCHITECTURES
def test_all_linear_layers_but_the_head_are_quantized(checkpoint, config):
    variant, folder = checkpoint
    plain, model = load(variant, folder), load(variant, folder, quantization_config=config)
    state, expected = model.state_dict(), plain.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        values = expected[name].numpy()
        if not is_linear(name):
            assert tensor.dtype == "float32", name
            np.testing.assert_array_equal(tensor.numpy(), values)
            continue
        assert tensor.dtype == config.inner.format, name
        assert tensor.shape == values.shape
        if config is NF4:
            np.testing.assert_array_equal(tensor.numpy(), quantize_4bit(values, "nf4").values)
        elif config is INT8:
            codes = int8_values(*quantize_int8(values))
            np.testing.assert_allclose(tensor.numpy(), codes, rtol=3e-7)
    assert dict(model.named_parameters()).keys() == state.keys()


@pytest.mark.parametrize("config", [NF4, FP4], ids=["nf4", "fp4"])
@ARCHITECTURES
def test_results_are_those_of_the_dequantized_weights(checkpoint, config, tmp_path):
    variant, folder = checkpoint
    model = load(variant, folder, quantization_config=config)
    plain = load(variant, folder)
    plain.load_state_dict({name: tensor.numpy() for name, tensor in model.state_dict().items()})
    for length in (1, 7, 40):
        ids = piece_ids(length, 2, length)
        ours, expected = results(model(ids)), results(plain(ids))
        for mine, theirs in zip(ours, expected, strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or distance(mine, theirs) <= 5e-5


@ARCHITECTURES
def test_eight_bits_change_little(checkpoint):
    variant, folder = checkpoint
    ids = piece_ids(5, 2, 30)
    expected, _ = results(load(variant, folder)(ids))
    ours, _ = results(load(variant, folder, quantization_config=INT8)(ids))
    error = np.sqrt(((ours - expected) ** 2).mean() / (expected**2).mean())
    assert 1e-5 < error < 0.1


def test_which_models_say_that_they_can_be_quantized():
    for kind in (LlamaCausalLM, GPTNeoXCausalLM, FalconCausalLM, MPTCausalLM):
        assert issubclass(kind, Quantizable)
        assert kind.modules_to_not_quantize() == {"output_embeddings"}


def test_modules_are_left_alone_by_their_whole_path(folder):
    class Choosy(LlamaCausalLM):
        @classmethod
        def modules_to_not_quantize(cls):
            return {"decoder.layers.1.mha.output", "mha.query", "decoder.layers.0"}

    state = Choosy.from_path(folder, quantization_config=NF4).state_dict()
    assert state["output_embeddings.weight"].dtype == "nf4"
    assert state["decoder.layers.1.mha.output.weight"].dtype == "float32"
    assert state["decoder.layers.0.mha.output.weight"].dtype == "nf4"
    assert state["decoder.layers.0.mha.query.weight"].dtype == "nf4"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_rest_has_the_models_dtype(folder, dtype):
    model = AutoCausalLM.from_path(folder, dtype=dtype, quantization_config=INT8)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {"llm_int8", dtype}


@pytest.mark.parametrize("config", [INT8, NF4, FP4], ids=FORMATS)
def test_every_loader_takes_a_configuration(folder, config, hub):
    hub.add("some/model", {path.name: path.read_bytes() for path in folder.iterdir()})
    expected = LlamaCausalLM.from_path(folder, quantization_config=config)(IDS).logits.numpy()
    options = {"quantization_config": config}
    fs = {"fs": fsspec.filesystem("file"), "model_path": str(folder)}
    name = {"name": "some/model"}
    for model in (
        AutoCausalLM.from_path(folder, **options),
        AutoCausalLM.from_fsspec(**fs, **options),
        AutoCausalLM.from_hf_hub(**name, **options),
        LlamaCausalLM.from_hf_hub(**name, **options),
        LlamaCausalLM.from_path(folder).from_fsspec_(**fs, **options),
        LlamaCausalLM.from_path(folder).from_hf_hub_(**name, **options),
    ):
        np.testing.assert_array_equal(model(IDS).logits.numpy(), expected)


def test_decoders_and_encoders_are_quantized_whole(tmp_path, folder):
    decoder = AutoDecoder.from_path(folder, quantization_config=NF4)
    assert decoder.state_dict()["layers.0.ffn.output.weight"].dtype == "nf4"
    encoder = AutoEncoder.from_path(small_models.bert(tmp_path / "bert"), quantization_config=INT8)
    assert encoder.state_dict()["layers.0.ffn.output.weight"].dtype == "llm_int8"


def test_finetunable_models_keep_the_weights_that_were_quantized(folder):
    plain = AutoCausalLM.from_path(folder)
    expected = AutoCausalLM.from_path(folder, quantization_config=INT8)
    config = BitsAndBytesConfig.for_8bit(finetunable=True)
    model = AutoCausalLM.from_path(folder, quantization_config=config)
    np.testing.assert_array_equal(model(IDS).logits.numpy(), expected(IDS).logits.numpy())
    for name, tensor in plain.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name].numpy(), tensor.numpy())
    model.to("float16")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {"float16"}
    assert "llm_int8" in repr(model)


@pytest.mark.parametrize("config", [INT8, NF4], ids=["llm_int8", "nf4"])
def test_another_dtype_changes_only_what_is_not_quantized(folder, config):
    model = AutoCausalLM.from_path(folder, quantization_config=config)
    before, logits = model.state_dict(), model(IDS).logits.numpy()
    model.to("bfloat16")
    for name, tensor in model.state_dict().items():
        if before[name].dtype == config.inner.format:
            assert tensor.dtype == config.inner.format
            np.testing.assert_array_equal(np.asarray(tensor.codes), np.asarray(before[name].codes))
        else:
            assert tensor.dtype == "bfloat16"
    model.to("float32")
    np.testing.assert_array_equal(model(IDS).logits.numpy(), logits)


def test_repr_shows_formats_and_their_memory(tmp_path):
    folder = small_models.llama(tmp_path, width=512, layers=2)
    model = AutoCausalLM.from_path(folder, quantization_config=NF4)
    n = sum(t.nbytes for t in model.state_dict().values() if t.dtype == "nf4")
    assert f", 14 matrices in nf4 ({n / 1e6:.1f} MB), cpu)" in repr(model)
    assert "matrices" not in repr(AutoCausalLM.from_path(folder))


def test_a_state_is_quantized_when_the_model_is(folder, tmp_path):
    other = small_models.llama(tmp_path / "other", width=64, seed=5)
    model = AutoCausalLM.from_path(folder, quantization_config=NF4)
    expected = AutoCausalLM.from_path(other, quantization_config=NF4)
    model.load_state_dict(AutoCausalLM.from_path(other).state_dict())
    np.testing.assert_array_equal(model(IDS).logits.numpy(), expected(IDS).logits.numpy())
    plain = AutoCausalLM.from_path(folder)
    plain.load_state_dict(expected.state_dict())
    assert "14 matrices in nf4" in repr(plain)


@pytest.mark.parametrize("prepare", [prepare_for_quantization, prepare_module_for_quantization])
def test_a_model_is_prepared_before_or_after_it_has_weights(folder, prepare):
    expected = AutoCausalLM.from_path(folder, quantization_config=NF4)(IDS).logits.numpy()
    loaded = AutoCausalLM.from_path(folder)
    assert prepare(loaded, NF4) is loaded
    np.testing.assert_array_equal(loaded(IDS).logits.numpy(), expected)
    empty = LlamaCausalLM(loaded.config)
    prepare(empty, NF4)
    empty.load_state_dict(AutoCausalLM.from_path(folder).state_dict())
    np.testing.assert_array_equal(empty(IDS).logits.numpy(), expected)
    with pytest.raises(ValueError, match="are quantized to nf4 already; load the model again"):
        prepare(loaded, INT8)


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_matrices_of_a_gguf_file_are_quantized_from_their_values(smollm2, dtype):
    plain = AutoCausalLM.from_path(smollm2, dtype=dtype).state_dict()
    model = AutoCausalLM.from_path(smollm2, dtype=dtype, quantization_config=NF4)
    state = model.state_dict()
    assert {tensor.dtype for name, tensor in state.items() if is_linear(name)} == {"nf4"}
    for name in ("decoder.layers.3.mha.key.weight", "decoder.layers.7.ffn.output.weight"):
        assert plain[name].dtype not in ("float32", "float16"), "not in blocks"
        values = quantize_4bit(plain[name].numpy(), "nf4").values
        np.testing.assert_array_equal(state[name].numpy(), values)
    name = "decoder.embeddings.piece_embeddings.weight"
    assert state[name].dtype == plain[name].dtype
    with pytest.raises(NotImplementedError, match="a model from a GGUF file cannot be saved"):
        model.save("nowhere")


def test_what_is_no_model_is_not_quantizable():
    with pytest.raises(ValueError, match="Module of type `object` is not quantizable"):
        prepare_module_for_quantization(object(), NF4)


def test_other_configurations_are_refused(folder, smollm2):
    for path in (folder, smollm2):
        with pytest.raises(TypeError, match="must be a BitsAndBytesConfig, is: dict"):
            AutoCausalLM.from_path(path, quantization_config={"load_in_8bit": True})


def test_a_device_that_is_not_there_is_the_same_error(folder):
    messages = set()
    for config in (None, NF4):
        with pytest.raises(NotImplementedError, match='"cuda" is not available') as error:
            AutoCausalLM.from_path(folder, device="cuda", quantization_config=config)
        messages.add(str(error.value))
    assert len(messages) == 1


@pytest.mark.parametrize("value", [np.nan, None])
def test_a_matrix_that_cannot_be_quantized_is_named(folder, value):
    weights = small_models.read_weights(folder)
    name = "model.layers.1.mlp.down_proj.weight"
    if value is None:  # of odd length, as would come of an odd width
        weights[name] = weights[name][:, :-1]
    else:
        weights[name] = weights[name].copy()
        weights[name][3, 4] = value
    write_safetensors(folder / "model.safetensors", weights)
    with pytest.raises(ValueError, match=rf"`{name}`: .*quantized"):
        AutoCausalLM.from_path(folder, quantization_config=NF4)


PEAK = """
import resource, sys
from curated_transformers.models import AutoCausalLM
from curated_transformers.quantization.bnb import BitsAndBytesConfig
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
configs = {"nf4": BitsAndBytesConfig.for_4bit("nf4"), "int8": BitsAndBytesConfig.for_8bit()}
before = peak()
model = AutoCausalLM.from_path(sys.argv[1], quantization_config=configs[sys.argv[2]])
print(peak() - before, sum(tensor.nbytes for tensor in model.state_dict().values()))
"""


@pytest.mark.skipif(SANITIZED, reason="measures memory")
@pytest.mark.parametrize("format", ["nf4", "int8"])
def test_loading_takes_the_quantized_model_and_one_matrix(tmp_path, format):
    """In a process of its own: the peak is the process'. 134 MB of weights, the largest 8 MB."""
    folder = small_models.llama(tmp_path, width=2048, heads=8, layers=2, pieces=300)
    n_bytes = (folder / "model.safetensors").stat().st_size
    assert n_bytes > 75e6
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), format],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    taken, model = map(int, done.stdout.split())
    assert taken < model + 35e6
    assert model + 35e6 < n_bytes
