"""Checkpoints that do not fit their config.json: what is refused, and that the message names the
parameter as the checkpoint does."""

from __future__ import annotations

import json
import re
import struct

import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors
from models import test_falcon as falcon
from models import test_float64_reference as neox
from models import test_mpt as mpt

from curated_transformers.models import AutoCausalLM, AutoEncoder

INDEX = "model.safetensors.index.json"


def read(folder):
    """config.json and the f32 arrays of a folder that `small_models` wrote."""
    raw = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    data = raw[8 + length :]
    weights = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        begin, end = entry["data_offsets"]
        weights[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return json.loads((folder / "config.json").read_text()), weights


class Family:
    """A model of an architecture that may be spoiled."""

    def __init__(self, kind, config, weights, layer, head=None):
        self.kind, self.config, self.weights = kind, config, weights
        self.layer = layer  # what its second layer's parameters begin with
        self.head = head

    def load(self, folder, weights=None, config=None):
        write_safetensors(
            folder / "model.safetensors", self.weights if weights is None else weights
        )
        return self.load_config(folder, config)

    def load_config(self, folder, config=None):
        (folder / "config.json").write_text(json.dumps(config or self.config))
        return self.kind.from_path(folder)

    @property
    def needed(self):
        """All parameters that must be there: a head that is not there is tied."""
        return [name for name in self.weights if name != self.head]


def bert(folder):
    return Family(AutoEncoder, *read(small_models.bert(folder)), "encoder.layer.1.")


def llama(folder):
    config, weights = read(small_models.llama(folder))
    return Family(AutoCausalLM, config, weights, "model.layers.1.", "lm_head.weight")


def gpt_neox(folder):
    weights = neox.neox_weights()
    return Family(
        AutoCausalLM, neox.neox_config(), weights, "gpt_neox.layers.1.", "embed_out.weight"
    )


def old_falcon(folder):
    config = falcon.MULTI_QUERY | {"parallel_attn": False, "bias": True}
    weights = falcon.random_weights(config)
    return Family(AutoCausalLM, config, weights, "transformer.h.1.", "lm_head.weight")


def new_falcon(folder):
    weights = falcon.random_weights(falcon.NEW)
    return Family(AutoCausalLM, falcon.NEW, weights, "transformer.h.1.", "lm_head.weight")


def untied_mpt(folder):
    config = mpt.config({"qk_ln": True}, no_bias=False, tie_word_embeddings=False)
    weights = mpt.random_weights(config)
    return Family(AutoCausalLM, config, weights, "transformer.blocks.1.", "lm_head.weight")


FAMILIES = [bert, llama, gpt_neox, old_falcon, new_falcon, untied_mpt]
DECODERS = pytest.mark.parametrize(
    "family", FAMILIES[1:], ids=lambda make: make.__name__, indirect=True
)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda make: make.__name__)
def family(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("family"))


def refusal(family, folder, weights=None, config=None):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the texts are compared by callers)
        family.load(folder, weights, config)
    return str(error.value)


def test_every_missing_parameter_is_named(family, tmp_path):
    for name in family.needed:
        weights = {key: value for key, value in family.weights.items() if key != name}
        message = refusal(family, tmp_path, weights)
        assert message.startswith("Some parameters were not updated/replaced: "), message
        assert f"`{name}` in the checkpoint" in message
        assert "1 more" not in message


def test_many_missing_parameters_are_named_together(family, tmp_path):
    left = {name: value for name, value in family.weights.items() if family.layer not in name}
    message = refusal(family, tmp_path, left)
    assert all(f"`{name}`" in message for name in family.weights if family.layer in name)


def test_an_empty_checkpoint(family, tmp_path):
    message = refusal(family, tmp_path, {})
    assert "Some parameters were not updated/replaced: " in message


def test_a_renamed_parameter_is_named(family, tmp_path):
    name = family.layer + "self_attn.unheard.weight"
    weights = {
        name if key == family.needed[-1] else key: value for key, value in family.weights.items()
    }
    assert f"`{name}`" in refusal(family, tmp_path, weights)


@pytest.mark.parametrize("what", ["unheard.weight", "0.weight", "bias"])
def test_an_additional_parameter_is_named(family, what, tmp_path):
    extra = {family.layer + what: np.zeros(3, np.float32)}
    assert f"`{family.layer}{what}`" in refusal(family, tmp_path, family.weights | extra)


def test_more_layers_than_config_json_says(family, tmp_path):
    extra = {
        name.replace(".1.", ".2."): value
        for name, value in family.weights.items()
        if family.layer in name
    }
    message = refusal(family, tmp_path, family.weights | extra)
    assert any(f"`{name}`" in message for name in extra)


def test_fewer_layers_than_config_json_says(family, tmp_path):
    key = {"mpt": "n_layers"}.get(family.config["model_type"], "num_hidden_layers")
    message = refusal(family, tmp_path, config=family.config | {key: 3})
    assert "Some parameters were not updated/replaced: " in message
    assert f"`{family.layer.replace('1', '2')}" in message


def test_every_parameter_of_another_shape_is_named(family, tmp_path):
    for name, array in family.weights.items():
        longer = np.concatenate([array, array[:1]])
        message = refusal(family, tmp_path, family.weights | {name: longer})
        wanted, got = list(array.shape), list(longer.shape)
        text = f"Expected size of replacement for `{name}` to be {wanted}, but got {got}"
        assert text in message


@pytest.mark.parametrize("rank", [0, 1, 3, 4])
def test_every_parameter_of_another_rank_is_named(family, rank, tmp_path):
    for name, array in family.weights.items():
        if array.ndim == rank:
            continue
        other = array.reshape(-1)[:1].reshape((1,) * rank) if rank == 0 else array
        other = other.reshape(-1) if rank == 1 else other
        while other.ndim < rank:
            other = other[None]
        message = refusal(family, tmp_path, family.weights | {name: other})
        assert f"`{name}`" in message
        assert str(list(other.shape)) in message


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_every_parameter_of_whole_numbers_is_named(family, dtype, tmp_path):
    for name, array in family.weights.items():
        message = refusal(family, tmp_path, family.weights | {name: array.astype(dtype)})
        text = rf"Expected dtype of replacement for `{re.escape(name)}` .* got {np.dtype(dtype)}"
        assert re.search(text, message), message


# Output heads.


def logits(model):
    return np.asarray(model(np.arange(1, 9)[None]).logits)


def embeddings_of(family):
    (name,) = [
        name for name in family.weights if re.search(r"(wte|embed_tokens|embed_in|word_e)", name)
    ]
    return family.weights[name]


@DECODERS
def test_a_head_that_is_not_there_is_the_piece_embeddings(family, tmp_path):
    without = {name: family.weights[name] for name in family.needed}
    copied = family.weights | {family.head: embeddings_of(family)}
    expected = logits(family.load(tmp_path, copied))
    for tied in (None, False, True):
        config = family.config | {"tie_word_embeddings": tied}
        np.testing.assert_array_equal(logits(family.load(tmp_path, without, config)), expected)


@DECODERS
def test_tie_word_embeddings_decides_about_a_head_that_is_there(family, tmp_path):
    own = logits(family.load(tmp_path, config=family.config | {"tie_word_embeddings": False}))
    copied = family.weights | {family.head: embeddings_of(family)}
    expected = logits(family.load(tmp_path, copied))
    assert np.abs(own - expected).max() > 0.1
    model = family.load(tmp_path, config=family.config | {"tie_word_embeddings": True})
    np.testing.assert_array_equal(logits(model), expected)
    assert "output_embeddings.weight" not in model.state_dict()


@pytest.mark.parametrize(
    "family", [llama, gpt_neox, new_falcon], ids=lambda make: make.__name__, indirect=True
)
def test_a_file_that_does_not_say_has_the_head_that_is_there(family, tmp_path):
    own = logits(family.load(tmp_path, config=family.config | {"tie_word_embeddings": False}))
    config = family.config | {"tie_word_embeddings": None}
    np.testing.assert_array_equal(logits(family.load(tmp_path, config=config)), own)


@DECODERS
def test_a_head_of_another_vocabulary_is_named(family, tmp_path):
    head = family.weights[family.head]
    for other in (head[:-1], np.concatenate([head, head])):
        message = refusal(family, tmp_path, family.weights | {family.head: other})
        assert f"Expected size of replacement for `{family.head}` to be" in message


@DECODERS
@pytest.mark.parametrize("value", ["yes", 1, []])
def test_tie_word_embeddings_of_another_kind(family, value, tmp_path):
    message = refusal(family, tmp_path, config=family.config | {"tie_word_embeddings": value})
    assert f"tie_word_embeddings must be true or false, was: {value!r}" in message


# Files.


@pytest.mark.parametrize("left", [0, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_named(family, left, tmp_path):
    family.load(tmp_path)
    path = tmp_path / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[: left if isinstance(left, int) else int(left * len(raw))])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        family.load_config(tmp_path)


def write_shards(family, folder):
    halves = [dict(list(family.weights.items())[start::2]) for start in (0, 1)]
    weight_map = {}
    for number, half in enumerate(halves):
        name = f"model-{number}.safetensors"
        write_safetensors(folder / name, half)
        weight_map |= dict.fromkeys(half, name)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_a_shard_that_is_missing_is_named(family, tmp_path):
    write_shards(family, tmp_path)
    family.load_config(tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(OSError, match=r"model-1\.safetensors"):
        family.load_config(tmp_path)


def test_a_shard_without_a_parameter_of_the_index_is_named(family, tmp_path):
    weight_map = write_shards(family, tmp_path)
    name = family.needed[1]
    shard = weight_map[name]
    rest = {key: family.weights[key] for key in weight_map if weight_map[key] == shard}
    del rest[name]
    write_safetensors(tmp_path / shard, rest)
    with pytest.raises((ValueError, OSError), match=re.escape(name)):
        family.load_config(tmp_path)


# What is no mistake.


def test_numbers_that_are_none_pass_through(family, tmp_path):
    name = next(name for name in family.weights if name.startswith(family.layer))
    spoiled = family.weights[name].copy()
    spoiled.reshape(-1)[0] = np.nan
    states = family.load(tmp_path, family.weights | {name: spoiled})(np.arange(1, 9)[None])
    assert np.isfinite(np.asarray(states.all_outputs[1])).all()
    assert np.isnan(np.asarray(states.all_outputs[2])).any()


def test_a_state_that_does_not_fit_leaves_the_model_as_it_was(family, tmp_path):
    model = family.load(tmp_path)
    before = np.asarray(model(np.arange(1, 9)[None]).last_hidden_layer_state)
    state = dict(model.state_dict())
    name = next(name for name in state if "layers.1." in name)
    with pytest.raises(ValueError, match="not updated/replaced"):
        model.load_state_dict({key: value for key, value in state.items() if key != name})
    after = np.asarray(model(np.arange(1, 9)[None]).last_hidden_layer_state)
    np.testing.assert_array_equal(after, before)
