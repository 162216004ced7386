"""Checkpoints in the form that bitsandbytes saves: written here by its rules, read by us; what
`save` makes of them; and those that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_models
from checkpoint_writers import safetensors, write_safetensors
from oracles.bitsandbytes_formats import CODEBOOKS, int8_values, quantize_4bit, quantize_int8

from curated_transformers.checkpoint import load_checkpoint
from curated_transformers.checkpoint.bitsandbytes import BitsAndBytesCheckpoint, with_scales
from curated_transformers.models import AutoCausalLM, LlamaCausalLM
from curated_transformers.quantization.bnb import BitsAndBytesConfig

GOLDEN = dict(np.load(Path(__file__).parent.parent / "golden" / "quant.npz"))
DYNAMIC = GOLDEN["code_dynamic8"]
IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
KINDS = ("int8", "nf4", "fp4", "nf4-nested", "fp4-nested")
NAME = "model.layers.1.mlp.up_proj.weight"


def json_tensor(values):
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def keys_of(name, matrix, kind):
    """The keys of a quantized matrix, and its values."""
    format, _, nested = kind.partition("-")
    if format == "int8":
        codes, absmax = quantize_int8(matrix)
        layer = name.removesuffix(".weight")
        sides = {f"{layer}.SCB": absmax, f"{layer}.weight_format": np.zeros((), np.uint8)}
        return {name: codes} | sides, int8_values(codes, absmax).astype(np.float32)
    made = quantize_4bit(matrix, format, DYNAMIC if nested else None)
    state = {"quant_type": format, "blocksize": 64, "dtype": "float16", "shape": [*matrix.shape]}
    keys = {name: made.packed[:, None], f"{name}.quant_map": CODEBOOKS[format]}
    if made.nested is None:
        keys[f"{name}.absmax"] = made.absmax
    else:
        keys[f"{name}.absmax"] = made.nested["absmax"]
        keys[f"{name}.nested_absmax"] = made.nested["nested_absmax"]
        keys[f"{name}.nested_quant_map"] = DYNAMIC
        state |= {"nested_blocksize": 256, "nested_dtype": "float32"}
        state["nested_offset"] = float(made.nested["offset"])
    keys[f"{name}.quant_state.bitsandbytes__{format}"] = json_tensor(state)
    return keys, made.values


def is_linear(name):
    return "_proj." in name


class Checkpoint:
    """A quantized one, and the plain one of the values that it stands for."""

    def __init__(self, tmp_path, kind, **stated):
        self.kind = kind
        self.folder = small_models.llama(tmp_path / "quantized", width=64)
        self.plain = small_models.llama(tmp_path / "plain", width=64)
        self.keys, values = {}, {}
        for name, matrix in small_models.read_weights(self.plain).items():
            keys, values[name] = {name: matrix}, matrix
            if is_linear(name):
                keys, values[name] = keys_of(name, matrix, kind)
            self.keys |= keys
        write_safetensors(self.plain / "model.safetensors", values)
        bits = "load_in_8bit" if kind == "int8" else "load_in_4bit"
        stated = {"quant_method": "bitsandbytes", bits: True} | stated
        self.state({key: value for key, value in stated.items() if value is not ...})
        self.write()

    def state(self, quantization):
        config = json.loads((self.plain / "config.json").read_text())
        config["quantization_config"] = quantization
        (self.folder / "config.json").write_text(json.dumps(config))

    def write(self):
        write_safetensors(self.folder / "model.safetensors", self.keys)

    @property
    def state_key(self):
        return f"{NAME}.quant_state.bitsandbytes__{self.kind.partition('-')[0]}"

    def change_state(self, **changes):
        state = json.loads(self.keys[self.state_key].tobytes()) | changes
        state = {key: value for key, value in state.items() if value is not ...}
        self.keys[self.state_key] = json_tensor(state)

    def refused(self):
        self.write()
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the caller looks at the text)
            AutoCausalLM.from_path(self.folder)
        return str(error.value)


@pytest.fixture(params=KINDS)
def checkpoint(request, tmp_path):
    return Checkpoint(tmp_path, request.param)


@pytest.fixture
def nested(tmp_path):
    return Checkpoint(tmp_path, "nf4-nested")


@pytest.fixture
def int8(tmp_path):
    return Checkpoint(tmp_path, "int8", llm_int8_threshold=0.0)


def test_matrices_have_the_values_of_their_keys(checkpoint):
    model = AutoCausalLM.from_path(checkpoint.folder)
    plain = AutoCausalLM.from_path(checkpoint.plain)
    state, expected = model.state_dict(), plain.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        if tensor.dtype == "llm_int8":
            np.testing.assert_allclose(tensor.numpy(), expected[name].numpy(), rtol=3e-7)
        else:
            np.testing.assert_array_equal(tensor.numpy(), expected[name].numpy())
    n_quantized = sum(tensor.dtype in ("llm_int8", "nf4", "fp4") for tensor in state.values())
    assert n_quantized == 14
    ours, theirs = model(IDS).logits.numpy(), plain(IDS).logits.numpy()
    if checkpoint.kind == "int8":
        error = np.sqrt(((ours - theirs) ** 2).mean() / (theirs**2).mean())
        assert 1e-4 < error < 0.05  # of activations in bytes
    else:
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_checkpoint_is_saved_with_the_keys_that_it_came_with(checkpoint, tmp_path):
    model = AutoCausalLM.from_path(checkpoint.folder)
    model.save(tmp_path / "saved")
    saved = load_checkpoint(tmp_path / "saved")
    assert saved.keys() == checkpoint.keys.keys()
    for name, array in checkpoint.keys.items():
        if "quant_state" in name:
            ours = json.loads(saved[name].numpy().tobytes())
            assert ours == json.loads(array.tobytes())
        else:
            assert saved[name].shape == array.shape, name
            assert saved[name].dtype == array.dtype.name
            np.testing.assert_array_equal(saved[name].numpy(), array)
    again = AutoCausalLM.from_path(tmp_path / "saved")
    np.testing.assert_array_equal(again(IDS).logits.numpy(), model(IDS).logits.numpy())


@pytest.mark.parametrize("size", ["5GB", "5KB"])
def test_saving_to_where_it_came_from(checkpoint, size):
    model = AutoCausalLM.from_path(checkpoint.folder)
    before = model(IDS).logits.numpy()
    model.save(checkpoint.folder, max_shard_size=size)
    again = AutoCausalLM.from_path(checkpoint.folder)
    for one in (model, again):
        np.testing.assert_array_equal(one(IDS).logits.numpy(), before)


SAVED = {
    "quant_method": "bitsandbytes",
    "llm_int8_skip_modules": None,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "bnb_4bit_quant_storage": "uint8",
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            BitsAndBytesConfig.for_8bit(4.5),
            {"load_in_8bit": True, "load_in_4bit": False, "llm_int8_threshold": 4.5},
        ),
        (
            BitsAndBytesConfig.for_4bit("nf4", "float16"),
            {
                "load_in_8bit": False,
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_compute_dtype": "float16",
                "bnb_4bit_use_double_quant": True,
            },
        ),
    ],
    ids=["int8", "nf4"],
)
def test_config_json_says_how_the_model_computes(tmp_path, config, expected):
    folder = small_models.llama(tmp_path / "model", width=64)
    model = AutoCausalLM.from_path(folder, quantization_config=config)
    model.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())["quantization_config"]
    assert saved.items() >= (SAVED | expected).items()
    again = AutoCausalLM.from_path(tmp_path / "saved")
    np.testing.assert_array_equal(again(IDS).logits.numpy(), model(IDS).logits.numpy())
    assert again.config == model.config


def test_linear_layers_that_were_left_alone_are_named(tmp_path):
    class Choosy(LlamaCausalLM):
        @classmethod
        def modules_to_not_quantize(cls):
            return {"decoder.layers.1.mha.output"}  # not the head

    folder = small_models.llama(tmp_path / "model", width=64)
    config = BitsAndBytesConfig.for_8bit()
    Choosy.from_path(folder, quantization_config=config).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())["quantization_config"]
    assert saved["llm_int8_skip_modules"] == ["model.layers.1.self_attn.o_proj"]


def test_finetunable_models_are_saved_as_they_were(tmp_path):
    folder = small_models.llama(tmp_path / "model", width=64, dtype="float16")
    config = BitsAndBytesConfig.for_8bit(finetunable=True)
    AutoCausalLM.from_path(folder, quantization_config=config).save(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    saved, source = load_checkpoint(tmp_path / "saved"), load_checkpoint(folder)
    assert saved.keys() == source.keys()
    for name, tensor in saved.items():
        assert tensor.dtype == "float16"
        np.testing.assert_array_equal(tensor.numpy(), source[name].numpy())


def test_a_part_of_a_matrix_is_not_saved(tmp_path):
    folder = small_models.llama(tmp_path / "model", width=64)
    model = AutoCausalLM.from_path(folder, quantization_config=BitsAndBytesConfig.for_8bit())
    state = model.state_dict()
    whole = state["decoder.layers.0.ffn.intermediate.weight"]
    state["decoder.layers.0.mha.key.weight"] = whole[:32]
    model.load_state_dict(state)
    with pytest.raises(ValueError, match=r"`model.*k_proj.weight` is part of a quantized matrix"):
        model.save(tmp_path / "saved")


# What config.json says.


def logits(folder, **options):
    return AutoCausalLM.from_path(folder, **options)(IDS).logits.numpy()


def test_the_threshold_is_that_of_config_json(tmp_path):
    results = []
    for threshold in (0.0, 0.5, ...):
        checkpoint = Checkpoint(tmp_path / str(threshold), "int8", llm_int8_threshold=threshold)
        for expected in (0.0, 0.5, 6.0):
            config = BitsAndBytesConfig.for_8bit(expected)
            model = LlamaCausalLM.from_path(checkpoint.folder)
            plain = LlamaCausalLM(model.config)
            plain.quantize(config)
            plain.load_state_dict(model.state_dict())
            same = np.array_equal(plain(IDS).logits.numpy(), model(IDS).logits.numpy())
            # No input is beyond 6 here.
            assert same == (threshold == expected or (threshold != 0.5 and expected != 0.5))
        results.append(logits(checkpoint.folder))
    assert not np.array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("stated", ["torch.bfloat16", "bfloat16"])
def test_the_compute_dtype_is_that_of_config_json(tmp_path, stated):
    exact = Checkpoint(tmp_path / "f32", "nf4")
    rough = Checkpoint(tmp_path / "bf16", "nf4", bnb_4bit_compute_dtype=stated)
    assert not np.array_equal(logits(exact.folder), logits(rough.folder))
    config = BitsAndBytesConfig.for_4bit("nf4", "bfloat16", double_quantization=False)
    model = LlamaCausalLM(LlamaCausalLM.from_path(rough.plain).config)
    model.quantize(config)
    model.load_state_dict(LlamaCausalLM.from_path(rough.folder).state_dict())
    np.testing.assert_array_equal(model(IDS).logits.numpy(), logits(rough.folder))


@pytest.mark.parametrize(
    "stated",
    [
        {"quant_method": ...},
        {"quant_method": ..., "load_in_4bit": ..., "_load_in_4bit": True},
        {"load_in_4bit": ..., "load_in_8bit": True, "bnb_4bit_quant_type": "fp4"},
        {"llm_int8_skip_modules": ["model.layers"]},
    ],
)
def test_keys_decide_and_not_what_config_json_says_of_them(tmp_path, stated):
    checkpoint = Checkpoint(tmp_path, "nf4", **stated)
    np.testing.assert_allclose(logits(checkpoint.folder), logits(checkpoint.plain), atol=2e-5)


def test_without_quantization_config_keys_are_enough(checkpoint):
    expected = logits(checkpoint.folder)
    config = json.loads((checkpoint.plain / "config.json").read_text())
    (checkpoint.folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(logits(checkpoint.folder), expected)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantized by `gptq` are not supported"),
        ({"quant_method": "awq"}, "`awq`.*while it is loaded: pass quantization_config="),
        ({"quant_method": "fp8"}, "`fp8`"),
        ({"quant_method": "compressed-tensors"}, "`compressed-tensors`"),
        ({"bits": 4}, "`None`"),
        ("bitsandbytes", "`None`"),
    ],
)
def test_other_methods_are_refused(nested, stated, message):
    nested.state(stated)
    with pytest.raises(ValueError, match=message):
        AutoCausalLM.from_path(nested.folder)


@pytest.mark.parametrize(
    ("kind", "stated", "message"),
    [
        ("int8", {"llm_int8_threshold": "6"}, "llm_int8_threshold = '6' is no number"),
        ("int8", {"llm_int8_threshold": True}, "llm_int8_threshold = True is no number"),
        ("int8", {"llm_int8_threshold": -1}, "must be >= 0"),
        ("nf4", {"bnb_4bit_compute_dtype": "float64"}, "Unsupported compute dtype `float64`"),
        ("nf4", {"bnb_4bit_compute_dtype": [1]}, "Unsupported compute dtype"),
    ],
)
def test_settings_that_cannot_be(tmp_path, kind, stated, message):
    checkpoint = Checkpoint(tmp_path, kind, **stated)
    with pytest.raises(ValueError, match=message):
        AutoCausalLM.from_path(checkpoint.folder)


def test_what_a_checkpoint_is_counts_before_what_is_asked_for(int8):
    expected = logits(int8.folder)
    with pytest.warns(UserWarning, match=r"is quantized already: .*outlier_threshold=0\.0"):
        found = logits(int8.folder, quantization_config=BitsAndBytesConfig.for_4bit())
    np.testing.assert_array_equal(found, expected)


def test_asking_for_what_a_checkpoint_is_warns_of_nothing(nested, recwarn):
    config = BitsAndBytesConfig.for_4bit("nf4", "float32")
    nested.state(
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}
    )
    expected = logits(nested.folder)
    np.testing.assert_array_equal(logits(nested.folder, quantization_config=config), expected)
    fast = BitsAndBytesConfig.for_4bit("nf4", "float32", int8_activations=True)
    model = AutoCausalLM.from_path(nested.folder, quantization_config=fast)
    one = IDS[:, :1]
    exact = AutoCausalLM.from_path(nested.folder)(one).logits.numpy()
    assert not np.array_equal(model(one).logits.numpy(), exact)
    assert not recwarn.list


def test_layers_are_told_apart_one_by_one(tmp_path):
    """Some in 8 bits, some in 4, some not at all."""
    checkpoint = Checkpoint(tmp_path, "nf4")
    plain = small_models.read_weights(small_models.llama(tmp_path / "source", width=64))
    for name, kind in (("model.layers.0.mlp.up_proj.weight", "int8"), (NAME, None)):
        for key in [key for key in checkpoint.keys if key.startswith(name)]:
            del checkpoint.keys[key]
        checkpoint.keys |= keys_of(name, plain[name], kind)[0] if kind else {name: plain[name]}
    checkpoint.write()
    model = AutoCausalLM.from_path(checkpoint.folder)
    with pytest.warns(UserWarning, match="is quantized already"):
        asked = AutoCausalLM.from_path(
            checkpoint.folder, quantization_config=BitsAndBytesConfig.for_4bit()
        )
    for state in (model.state_dict(), asked.state_dict()):
        assert state["decoder.layers.0.ffn.intermediate.weight"].dtype == "llm_int8"
        assert state["decoder.layers.1.ffn.intermediate.weight"].dtype == "float32"
        assert state["decoder.layers.1.ffn.gate.weight"].dtype == "nf4"


def test_the_wrapper_is_there_only_where_it_is_needed(checkpoint):
    plain = load_checkpoint(checkpoint.plain)
    assert with_scales(plain) is plain
    folded = with_scales(load_checkpoint(checkpoint.folder))
    assert isinstance(folded, BitsAndBytesCheckpoint)
    assert list(folded) == [name for name in folded if name in plain]
    assert len(folded) == len(plain)
    side = next(key for key in checkpoint.keys if key not in plain)
    assert side not in folded
    with pytest.raises(KeyError):
        folded[side]


# Forms of the same.


@pytest.mark.parametrize("storage", ["int8", "float16", "float32", "bfloat16"])
def test_codes_stored_as_another_type_are_the_same_bytes(tmp_path, storage):
    checkpoint = Checkpoint(tmp_path, "nf4", bnb_4bit_quant_storage=storage)
    expected = logits(checkpoint.folder)
    kinds = {"int8": "I8", "float16": "F16", "float32": "F32", "bfloat16": "BF16"}
    header, data, stored = {}, b"", {}
    for name, array in checkpoint.keys.items():
        raw, shape = array.tobytes(), list(array.shape)
        kind = {"uint8": "U8", "float32": "F32"}[array.dtype.name]
        if is_linear(name) and name.endswith(".weight"):
            kind = kinds[storage]
            size = {"I8": 1, "F32": 4}.get(kind, 2)
            shape = [len(raw) // size, 1]
            stored[name] = kind
        header[name] = {"dtype": kind, "shape": shape}
        header[name]["data_offsets"] = [len(data), len(data) + len(raw)]
        data += raw
    assert len(stored) == 14
    (checkpoint.folder / "model.safetensors").write_bytes(safetensors(header, data))
    np.testing.assert_array_equal(logits(checkpoint.folder), expected)


@pytest.mark.parametrize("format", ["nf4", "fp4"])
@pytest.mark.parametrize("block", [32, 128, 4096])
def test_blocks_of_other_sizes(tmp_path, format, block):
    checkpoint = Checkpoint(tmp_path, format)
    key = checkpoint.state_key.replace(NAME, "{}")
    weights = small_models.read_weights(checkpoint.plain)
    rng = np.random.default_rng(0)
    for name in filter(is_linear, weights):
        size = weights[name].size
        scales = rng.random(-(-size // block), np.float32) / 20 + np.float32(0.1)
        codes = rng.integers(0, 256, size // 2, np.uint8)
        state = json.loads(checkpoint.keys[key.format(name)].tobytes()) | {"blocksize": block}
        checkpoint.keys[name] = codes[:, None]
        checkpoint.keys[f"{name}.absmax"] = scales
        checkpoint.keys[key.format(name)] = json_tensor(state)
        nibbles = np.stack([codes >> 4, codes & 15], 1).ravel()
        values = CODEBOOKS[format][nibbles] * np.repeat(scales, block)[:size]
        weights[name] = values.reshape(weights[name].shape)
    checkpoint.write()
    write_safetensors(checkpoint.plain / "model.safetensors", weights)
    expected = logits(checkpoint.plain)
    np.testing.assert_allclose(
        logits(checkpoint.folder), expected, atol=2e-5 * np.abs(expected).max()
    )


def test_older_files_have_no_weight_format(int8):
    expected = logits(int8.folder)
    for name in [name for name in int8.keys if name.endswith("weight_format")]:
        del int8.keys[name]
    int8.write()
    np.testing.assert_array_equal(logits(int8.folder), expected)


# Refused: every message names the key.


def test_matrices_ordered_for_a_gpu_are_refused(int8):
    int8.keys["model.layers.1.mlp.up_proj.weight_format"] = np.array(2, np.uint8)
    assert "up_proj.weight_format` is [2]: only matrices in rows (0)" in int8.refused()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SCB", np.ones(47, np.float32), "up_proj.weight`: absmax must be...[48]"),
        ("SCB", np.ones(48, np.float16), "up_proj.SCB` must be float32, is float16"),
        ("SCB", ..., "no `model.layers.1.mlp.up_proj.SCB`, which"),
        ("weight", np.zeros((48, 63), np.int8), "up_proj.weight`"),
        ("weight", np.zeros((48, 64), np.uint8), "up_proj.weight` must be a matrix of int8"),
        ("weight", np.zeros(48 * 64, np.int8), "up_proj.weight` must be a matrix of int8"),
        ("weight", ..., "up_proj.weight`"),
        ("weight_format", np.zeros(2, np.uint8), "weight_format` is [0, 0]"),
        ("weight_format", np.zeros((), np.float32), "weight_format` must be uint8"),
        ("weight.absmax", np.zeros(48, np.float32), "absmax` does not go with"),
    ],
)
def test_parts_of_eight_bits_that_do_not_fit(int8, key, value, message):
    key = f"model.layers.1.mlp.up_proj.{key}"
    if value is ...:
        del int8.keys[key]
    else:
        int8.keys[key] = value
    refused = int8.refused()
    assert all(part in refused for part in message.split("..."))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("", np.zeros((48 * 64 // 2 - 1, 1), np.uint8)),
        ("", np.zeros((48 * 64 // 2 + 1, 1), np.uint8)),
        ("", ...),
        (".absmax", np.zeros(47, np.uint8)),
        (".absmax", np.zeros(48, np.float32)),
        (".absmax", ...),
        (".quant_map", CODEBOOKS["fp4"]),
        (".quant_map", CODEBOOKS["nf4"][:15]),
        (".quant_map", np.full(16, np.nan, np.float32)),
        (".quant_map", CODEBOOKS["nf4"].astype(np.float16)),
        (".quant_map", ...),
        (".nested_absmax", np.zeros(2, np.float32)),
        (".nested_absmax", ...),
        (".nested_quant_map", np.zeros(255, np.float32)),
        (".nested_quant_map", DYNAMIC.astype(np.float16)),
        (".nested_quant_map", ...),
        (".quant_state.bitsandbytes__nf4", ...),
        (".quant_state.bitsandbytes__nf4", np.frombuffer(b"[1", np.uint8)),
        (".quant_state.bitsandbytes__nf4", np.frombuffer(b"[1]", np.uint8)),
        (".quant_state.bitsandbytes__nf4", np.frombuffer(b"\xff{}", np.uint8)),
        (".quant_state.bitsandbytes__nf4", np.frombuffer(b"[" * 60000, np.uint8)),
        (".quant_state.bitsandbytes__nf4", np.frombuffer(b" " * 70000 + b"{}", np.uint8)),
        (".quant_state.bitsandbytes__nf4", np.zeros(4, np.float32)),
        (".quant_state.bitsandbytes__int2", np.frombuffer(b"{}", np.uint8)),
    ],
    ids=str,
)
def test_parts_of_four_bits_that_do_not_fit(nested, part, value):
    if value is ...:
        del nested.keys[NAME + part]
    else:
        nested.keys[NAME + part] = value
    message = nested.refused()
    assert NAME in message or "decoder.layers.1.ffn.intermediate" in message


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("quant_type", value) for value in ("fp4", "int8", None, ...)),
        *(("blocksize", value) for value in (0, -64, 63, 48, 8192, 64.0, True, "64", None, ...)),
        *(("dtype", value) for value in ("float64", "torch.float16", 16, None, ...)),
        *(("shape", value) for value in ([48], [48, 64, 1], [48, 65], [-48, -64], [0, 0], 48)),
        *(("shape", value) for value in ([48.0, 64], [1 << 32, 1 << 33], [2**63, 2], None, ...)),
        *(("shape", value) for value in ([True, 3072], [3072, 1], [1024, 3])),
        *(("nested_blocksize", value) for value in (64, 512, "256", None, ...)),
        *(("nested_dtype", value) for value in ("float16", None, ...)),
        *(("nested_offset", value) for value in ("0", True, None, ..., float("nan"), 1e300)),
        *(("nested_offset", value) for value in (float("-inf"), 10**400)),
    ],
    ids=str,
)
def test_members_of_a_state_that_cannot_be(nested, member, value):
    nested.change_state(**{member: value})
    message = nested.refused()
    assert NAME in message
    if member != "shape":
        assert member in message


def test_a_state_without_nesting_for_nested_scales(nested):
    nested.change_state(nested_blocksize=..., nested_dtype=..., nested_offset=...)
    assert "has nested scales, of which its quant_state says nothing" in nested.refused()
