"""Falcon: ALiBi and the orders of its projections in float64, and its two kinds of config.json."""

from __future__ import annotations

import re

import numpy as np
import pytest
from models.float64 import alibi_slopes, attend, check, float64, gelu, layer_norm, rotate
from models.variants.falcon import VARIANTS
from small_models import write_model

from curated_transformers.models import AutoCausalLM
from curated_transformers.models.falcon import FalconCausalLM, FalconConfig, FalconDecoder

WIDTH, HEADS, LAYERS, PIECES = 48, 6, 2, 50
HEAD = WIDTH // HEADS
CONFIG = {
    "model_type": "falcon",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "parallel_attn": True,
    "bias": False,
    "alibi": False,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": PIECES,
    "torch_dtype": "float32",
}
MULTI_QUERY = CONFIG | {"multi_query": True, "num_kv_heads": 71}  # which is then of no meaning
HEADS_OF_THEIR_OWN = CONFIG | {"multi_query": False}
NEW = CONFIG | {"new_decoder_architecture": True, "num_kv_heads": 2}


def kv_heads(config):
    if config.get("new_decoder_architecture"):
        return config["num_kv_heads"]
    return 1 if config["multi_query"] else HEADS


def random_weights(config):
    rng = np.random.default_rng(13)
    weights = {}

    def linear(name, rows, columns):
        weights[name + ".weight"] = 1.5 * rng.standard_normal((rows, columns)) / np.sqrt(columns)
        if config["bias"]:
            weights[name + ".bias"] = 0.3 * rng.standard_normal(rows)

    norms = ["ln_f"]
    for i in range(LAYERS):
        p = f"transformer.h.{i}."
        linear(p + "self_attention.query_key_value", WIDTH + 2 * HEAD * kv_heads(config), WIDTH)
        linear(p + "self_attention.dense", WIDTH, WIDTH)
        linear(p + "mlp.dense_h_to_4h", 4 * WIDTH, WIDTH)
        linear(p + "mlp.dense_4h_to_h", WIDTH, 4 * WIDTH)
        norms += [f"h.{i}.{name}" for name in norm_names(config)]
    for name in norms:
        weights[f"transformer.{name}.weight"] = 1 + 0.3 * rng.standard_normal(WIDTH)
        weights[f"transformer.{name}.bias"] = 0.3 * rng.standard_normal(WIDTH)
    weights["transformer.word_embeddings.weight"] = rng.standard_normal((PIECES, WIDTH))
    weights["lm_head.weight"] = rng.standard_normal((PIECES, WIDTH))
    return {name: array.astype(np.float32) for name, array in weights.items()}


def norm_names(config):
    """Of attention and of the feed-forward half; the same where they share one."""
    if config.get("new_decoder_architecture"):
        if config.get("num_ln_in_parallel_attn", 2) == 2:
            return "ln_attn", "ln_mlp"
        return "input_layernorm", "input_layernorm"
    return "input_layernorm", "input_layernorm" if config["parallel_attn"] else (
        "post_attention_layernorm"
    )


def split(config, qkv):
    """Queries, keys and values [seq, heads, width] by the words of the original."""
    n, kv = len(qkv), kv_heads(config)
    groups = qkv.reshape(n, kv, HEADS // kv + 2, HEAD)
    return groups[:, :, :-2].reshape(n, HEADS, HEAD), groups[:, :, -2], groups[:, :, -1]


def falcon_logits(config, weights, ids):
    w, n = float64(weights), len(ids)
    parallel = config.get("new_decoder_architecture") or config["parallel_attn"]
    names = norm_names(config)

    def norm(x, name):
        name = f"transformer.{name}"
        return layer_norm(x, w[name + ".weight"], w[name + ".bias"])

    def linear(x, name):
        name = f"transformer.{name}"
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    x = w["transformer.word_embeddings.weight"][ids]
    for i in range(LAYERS):
        p = f"h.{i}."
        normed = norm(x, p + names[0])
        q, k, v = split(config, linear(normed, p + "self_attention.query_key_value"))
        bias = 0.0
        if config["alibi"]:  # scaled together with the scores
            bias = alibi_slopes(HEADS)[:, None, None] * np.arange(n) / np.sqrt(HEAD)
        else:
            base = config.get("rope_theta", 10000)
            q, k = rotate(q, HEAD, base), rotate(k, HEAD, base)
        attended = linear(attend(q, k, v, bias=bias), p + "self_attention.dense")
        h = x + attended
        inner = gelu(linear(norm(x if parallel else h, p + names[1]), p + "mlp.dense_h_to_4h"))
        x = h + linear(inner, p + "mlp.dense_4h_to_h")
    return norm(x, "ln_f") @ w["lm_head.weight"].T


@pytest.mark.parametrize(
    "config",
    [
        MULTI_QUERY,
        MULTI_QUERY | {"alibi": True},
        MULTI_QUERY | {"parallel_attn": False, "bias": True},
        HEADS_OF_THEIR_OWN | {"rope_theta": 500},
        HEADS_OF_THEIR_OWN | {"alibi": True, "parallel_attn": False, "bias": True},
        NEW,
        NEW | {"parallel_attn": False},  # which changes nothing
        NEW | {"num_ln_in_parallel_attn": 1},
        NEW | {"alibi": True, "num_kv_heads": 3},
    ],
    ids=lambda config: "-".join(
        f"{key}={value}" for key, value in config.items() if CONFIG.get(key) != value
    ),
)
def test_logits(config, tmp_path):
    weights = random_weights(config)
    write_model(tmp_path, config, weights)
    ids = np.random.default_rng(3).integers(0, PIECES, 40)
    check(FalconCausalLM.from_path(tmp_path), falcon_logits(config, weights, ids), ids)


def test_the_older_config_json_and_unprefixed_names_load_as_well(tmp_path):
    weights = random_weights(NEW)
    write_model(tmp_path, REFINED_WEB, weights)
    model = AutoCausalLM.from_path(tmp_path)
    assert isinstance(model, FalconCausalLM)
    ids = np.random.default_rng(3).integers(0, PIECES, 12)
    check(model, falcon_logits(NEW, weights, ids), ids)
    bare = {name.removeprefix("transformer."): value for name, value in weights.items()}
    del bare["lm_head.weight"]
    decoder = FalconDecoder.from_path(write_model(tmp_path / "bare", NEW, bare))
    np.testing.assert_array_equal(
        np.asarray(decoder(ids[None]).last_hidden_layer_state),
        np.asarray(model(ids[None]).last_hidden_layer_state),
    )


# Names.

OLD_NAMES = {
    "transformer.h.3.input_layernorm.weight": "decoder.layers.3.attn_layer_norm.weight",
    "transformer.h.3.post_attention_layernorm.bias": "decoder.layers.3.ffn_layer_norm.bias",
}
NEW_NAMES = {
    "transformer.h.3.ln_attn.weight": "decoder.layers.3.attn_input_layer_norm.weight",
    "transformer.h.3.ln_mlp.bias": "decoder.layers.3.ffn_input_layer_norm.bias",
    "transformer.h.3.self_attention.query_key_value.weight": "decoder.layers.3.mha.input.weight",
    "transformer.h.3.self_attention.dense.bias": "decoder.layers.3.mha.output.bias",
    "transformer.h.3.mlp.dense_h_to_4h.weight": "decoder.layers.3.ffn.intermediate.weight",
    "transformer.h.3.mlp.dense_4h_to_h.weight": "decoder.layers.3.ffn.output.weight",
    "transformer.word_embeddings.weight": "decoder.embeddings.piece_embeddings.weight",
    "transformer.ln_f.weight": "decoder.output_layer_norm.weight",
    "lm_head.weight": "output_embeddings.weight",
}


def test_parameters_have_the_documented_names():
    names = OLD_NAMES | NEW_NAMES
    theirs = {name: name for name in names}
    ours = FalconCausalLM.state_dict_from_hf(theirs)
    assert ours == {new: old for old, new in names.items()}
    assert FalconCausalLM.state_dict_to_hf(ours) == theirs
    decoder = {new.removeprefix("decoder."): new for new in names.values() if "layers" in new}
    assert FalconDecoder.state_dict_to_hf(decoder) == {
        old.removeprefix("transformer."): new for old, new in names.items() if "layers" in new
    }


@pytest.mark.parametrize(
    ("config", "norms"),
    [
        (MULTI_QUERY, ["attn_layer_norm"]),
        (MULTI_QUERY | {"parallel_attn": False}, ["attn_layer_norm", "ffn_layer_norm"]),
        (NEW, ["attn_input_layer_norm", "ffn_input_layer_norm"]),
        (NEW | {"num_ln_in_parallel_attn": 1}, ["attn_layer_norm"]),
    ],
    ids=["old", "old-sequential", "new", "new-one-norm"],
)
def test_the_norms_of_a_layer_in_a_state(config, norms, tmp_path):
    write_model(tmp_path, config, random_weights(config))
    state = FalconCausalLM.from_path(tmp_path).state_dict()
    found = {name.split(".")[3] for name in state if "layers.0." in name and "norm" in name}
    assert found == set(norms)


# config.json.

REFINED_WEB = {
    "model_type": "RefinedWeb",
    "hidden_size": WIDTH,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_head_kv": 2,
    "parallel_attn": True,
    "bias": False,
    "alibi": False,
    "layer_norm_epsilon": 1e-5,
    "vocab_size": PIECES,
    "apply_residual_connection_post_layernorm": False,
    "torch_dtype": "float32",
}
OLD_REFINED_WEB = {key: value for key, value in REFINED_WEB.items() if key != "n_head_kv"}


def read(config):
    return FalconDecoder.config_from_hf(config)


def test_the_older_format_is_the_newer_one_under_other_names():
    assert read(REFINED_WEB) == read(NEW)
    assert read(REFINED_WEB | {"model_type": "RefinedWebModel"}) == read(NEW)
    assert read(OLD_REFINED_WEB | {"multi_query": True}) == read(MULTI_QUERY)
    assert read(OLD_REFINED_WEB) == read(HEADS_OF_THEIR_OWN)
    assert read(OLD_REFINED_WEB | {"n_head_kv": None}) == read(HEADS_OF_THEIR_OWN)


def test_the_arguments_of_a_configuration():
    assert read(NEW) == FalconConfig(
        dtype="float32",
        hidden_width=WIDTH,
        n_query_heads=HEADS,
        n_key_value_heads=2,
        n_hidden_layers=LAYERS,
        n_pieces=PIECES,
        new_decoder_architecture=True,
        rotary_embedding_fraction=1.0,
    )
    old = read(MULTI_QUERY | {"alibi": True, "bias": True, "parallel_attn": False})
    assert old.layer.attention.n_key_value_heads == 1
    assert old.layer.attention.rotary_embeddings is None
    assert old.layer.feedforward.intermediate_width == 4 * WIDTH
    assert not old.new_decoder_architecture
    assert read({key: NEW[key] for key in NEW if key != "torch_dtype"}).dtype == "bfloat16"


def test_dropout_is_read_under_its_own_names_too():
    made = read(NEW | {"attention_dropout": 0.25, "hidden_dropout": 0.5})
    assert (made.layer.attention.dropout_prob, made.layer.dropout_prob) == (0.25, 0.5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_config_json_comes_back_in_the_newer_format(variant):
    for kind in (FalconDecoder, FalconCausalLM):
        made = kind.config_from_hf(variant.config)
        written = kind.config_to_hf(made)
        assert written["model_type"] == "falcon"
        assert kind.config_from_hf(written) == made


def test_the_documented_default_configuration_can_be_made_but_no_model_of_it():
    with pytest.raises(ValueError, match=r"2560.*must be divisible by the number of query heads"):
        FalconDecoder(FalconConfig())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NEW | {"num_kv_heads": None}, "must contain `n_head_kv`"),
        (NEW | {"num_kv_heads": -1}, "must contain `n_head_kv`"),
        (NEW | {"num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn must be 1"),
        (MULTI_QUERY | {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn must be 1"),
        (HEADS_OF_THEIR_OWN | {"num_kv_heads": 2}, "num_kv_heads = 2 is not supported"),
        (NEW | {"activation": "tanh"}, "Invalid activation function `tanh`"),
        (NEW | {"alibi": "no"}, "alibi must be true or false, was: 'no'"),
        (NEW | {"ffn_hidden_size": 1.5}, "ffn_hidden_size must be a whole number, was: 1.5"),
        (NEW | {"rope_scaling": {"type": "unheard"}}, "type `unheard` is not supported"),
        (
            REFINED_WEB | {"apply_residual_connection_post_layernorm": True},
            "apply_residual_connection_post_layernorm = True is not supported",
        ),
        (NEW | {"model_type": "bloom"}, "Unknown type of Falcon model: bloom"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(config)


def test_the_type_of_the_model_is_needed():
    with pytest.raises(KeyError, match="model_type"):
        read({key: value for key, value in NEW.items() if key != "model_type"})


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (NEW, ["num_attention_heads", "num_hidden_layers"]),
        (REFINED_WEB, ["n_head", "n_layer"]),
    ],
    ids=["falcon", "RefinedWeb"],
)
def test_missing_keys_are_named_together_as_the_format_calls_them(config, keys):
    kept = ("model_type", "n_head_kv", "new_decoder_architecture", "num_kv_heads")
    both = ["alibi", "bias", "hidden_size", "layer_norm_epsilon", "parallel_attn", "vocab_size"]
    named = str(tuple(sorted(both + keys)))
    with pytest.raises(ValueError, match="Missing keys in Hugging Face Falcon") as error:
        read({key: value for key, value in config.items() if key in kept})
    assert named in str(error.value)
