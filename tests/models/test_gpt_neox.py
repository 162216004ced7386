"""GPT-NeoX: its config.json, older and newer, and its names."""

from __future__ import annotations

import re

import pytest
from models.test_float64_reference import neox_config
from models.variants.gpt_neox import VARIANTS

from curated_transformers.models.gpt_neox import GPTNeoXCausalLM, GPTNeoXConfig, GPTNeoXDecoder

CONFIG = neox_config()


def read(**options):
    return GPTNeoXDecoder.config_from_hf(CONFIG | options)


def rotary(config):
    found = config.layer.attention.rotary_embeddings
    return found.rotary_base, found.rotary_fraction


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_config_json_comes_back(variant):
    for kind in (GPTNeoXDecoder, GPTNeoXCausalLM):
        made = kind.config_from_hf(variant.config)
        written = kind.config_to_hf(made)
        assert written["max_position_embeddings"] == variant.config["max_position_embeddings"]
        assert kind.config_from_hf(written) == made


def test_the_arguments_of_a_configuration():
    expected = GPTNeoXConfig(
        dtype="float32",
        hidden_width=32,
        intermediate_width=48,
        n_hidden_layers=2,
        n_attention_heads=4,
        activation=GPTNeoXConfig().layer.feedforward.activation,
        n_pieces=50,
        n_positions=64,
        model_max_length=64,
        rotary_embedding_base=500,
        rotary_embedding_fraction=0.5,
        attention_probs_dropout_prob=0.25,
        hidden_dropout_prob=0.75,
    )
    made = read(
        hidden_act="gelu",
        rotary_pct=0.5,
        rotary_emb_base=500,
        attention_probs_dropout_prob=0.25,
        hidden_dropout_prob=0.75,
    )
    assert made == expected


def test_rotary_embeddings_under_either_name():
    assert rotary(read()) == (10000, 0.25)
    assert rotary(read(rotary_pct=0.5, rotary_emb_base=500)) == (500, 0.5)
    newer = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    assert rotary(read(rope_parameters=newer)) == (500, 0.5)
    # As transformers reads a file that has both.
    assert rotary(read(rope_parameters=newer, rotary_pct=1.0, rotary_emb_base=3)) == (500, 0.5)
    only_type = {"rope_type": "default"}
    assert rotary(read(rope_parameters=only_type, rotary_pct=1.0, rotary_emb_base=3)) == (3, 1.0)


def test_scaling_under_either_name():
    linear = {"rope_type": "linear", "factor": 4.0}
    old = read(rope_scaling={"type": "linear", "factor": 4.0}, rotary_pct=1.0)
    new = read(rope_parameters=linear | {"rope_theta": 10000.0, "partial_rotary_factor": 1.0})
    assert old.rope_scaling == new.rope_scaling
    assert old.rope_scaling["factor"] == 4.0
    assert rotary(old) == rotary(new)


def test_dropout_is_read_under_its_own_names_too():
    made = read(attention_dropout=0.25, hidden_dropout=0.5)
    assert (made.layer.attention.dropout_prob, made.layer.dropout_prob) == (0.25, 0.5)
    made = read(attention_dropout=0.25, attention_probs_dropout_prob=0.5)
    assert made.layer.attention.dropout_prob == 0.5


def test_null_is_absent():
    nulls = dict.fromkeys(("rotary_pct", "rope_scaling", "rope_parameters", "attention_bias"))
    assert read(**nulls) == read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_act": "quick_gelu"}, "Invalid activation function `quick_gelu`"),
        ({"rope_scaling": {"type": "unheard"}}, "type `unheard` is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rotary scaling `linear` needs `factor`"),
        ({"rotary_emb_base": -1}, "must be positive, was: -1"),
        ({"rotary_pct": "all"}, "must be a number, was: 'all'"),
        ({"use_parallel_residual": "no"}, "use_parallel_residual must be true or false"),
        ({"attention_bias": 0}, "attention_bias must be true or false, was: 0"),
        ({"max_position_embeddings": 2.5}, "max_position_embeddings must be a whole number"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(**options)


@pytest.mark.parametrize("fraction", [1.5, -0.1])
def test_a_fraction_of_a_head_that_there_is_not(fraction):
    with pytest.raises(ValueError, match="Rotary embedding fraction should be between 0 and 1"):
        GPTNeoXDecoder(read(rotary_pct=fraction))


def test_missing_keys_are_named_together():
    names = (
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
    )
    with pytest.raises(ValueError, match="Missing keys in Hugging Face GPT-NeoX") as error:
        GPTNeoXDecoder.config_from_hf({"model_type": "gpt_neox"})
    assert str(names) in str(error.value)


def test_parameters_have_the_documented_names():
    layer = "gpt_neox.layers.3.", "decoder.layers.3."
    documented = {
        "gpt_neox.embed_in.weight": "decoder.embeddings.piece_embeddings.weight",
        layer[0] + "input_layernorm.weight": layer[1] + "attn_input_layer_norm.weight",
        layer[0] + "post_attention_layernorm.bias": layer[1] + "ffn_input_layer_norm.bias",
        layer[0] + "attention.query_key_value.weight": layer[1] + "mha.input.weight",
        layer[0] + "attention.dense.bias": layer[1] + "mha.output.bias",
        layer[0] + "mlp.dense_h_to_4h.weight": layer[1] + "ffn.intermediate.weight",
        layer[0] + "mlp.dense_4h_to_h.weight": layer[1] + "ffn.output.weight",
        "gpt_neox.final_layer_norm.weight": "decoder.output_layer_norm.weight",
        "embed_out.weight": "output_embeddings.weight",
    }
    theirs = {name: name for name in documented}
    ours = GPTNeoXCausalLM.state_dict_from_hf(theirs)
    assert ours == {new: old for old, new in documented.items()}
    assert GPTNeoXCausalLM.state_dict_to_hf(ours) == theirs
