"""MPT: all its options against a float64 statement of the original model, and its config.json.

transformers computes the options of `variants/mpt.py` only, and passes over the others.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from models.float64 import alibi_slopes, attend, check, float64, gelu, layer_norm, rms_norm
from small_models import write_model

from curated_transformers.generation import Generator, GreedyGeneratorConfig
from curated_transformers.layers.activations import Activation
from curated_transformers.models.mpt import MPTCausalLM, MPTConfig, MPTDecoder

WIDTH, HEADS, LAYERS, PIECES, LONGEST = 48, 6, 2, 50, 64
HEAD = WIDTH // HEADS
CONFIG = {
    "model_type": "mpt",
    "d_model": WIDTH,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "expansion_ratio": 4,
    "max_seq_len": LONGEST,
    "vocab_size": PIECES,
    "no_bias": True,
    "attn_config": {"alibi": True},
    "torch_dtype": "float32",
}


def config(attn_config=None, **options):
    return CONFIG | options | {"attn_config": CONFIG["attn_config"] | (attn_config or {})}


def kv_heads(config):
    attn = config["attn_config"]
    kind = attn.get("attn_type", "multihead_attention")
    return {"multihead_attention": HEADS, "multiquery_attention": 1}.get(
        kind, attn.get("kv_n_heads")
    )


def has_positions(config):
    return not config["attn_config"]["alibi"] and config.get("learned_pos_emb", True)


def random_weights(config):
    """A checkpoint with what the original model has for a configuration."""
    rng = np.random.default_rng(11)
    rms = "rmsnorm" in config.get("norm_type", "")
    inner, keys = int(config["expansion_ratio"] * WIDTH), kv_heads(config) * HEAD
    weights = {}

    def linear(name, rows, columns):
        weights[name + ".weight"] = rng.standard_normal((rows, columns)) / np.sqrt(columns)
        if not config["no_bias"]:
            weights[name + ".bias"] = 0.3 * rng.standard_normal(rows)

    def norm(name, width=WIDTH):
        weights[name + ".weight"] = 1 + 0.3 * rng.standard_normal(width)
        if not config["no_bias"] and not rms:
            weights[name + ".bias"] = 0.3 * rng.standard_normal(width)

    weights["transformer.wte.weight"] = rng.standard_normal((PIECES, WIDTH))
    if has_positions(config):
        weights["transformer.wpe.weight"] = rng.standard_normal((LONGEST, WIDTH))
    if not config.get("tie_word_embeddings", True):
        weights["lm_head.weight"] = rng.standard_normal((PIECES, WIDTH))
    norm("transformer.norm_f")
    for i in range(LAYERS):
        p = f"transformer.blocks.{i}."
        norm(p + "norm_1")
        norm(p + "norm_2")
        linear(p + "attn.Wqkv", WIDTH + 2 * keys, WIDTH)
        linear(p + "attn.out_proj", WIDTH, WIDTH)
        linear(p + "ffn.up_proj", inner, WIDTH)
        linear(p + "ffn.down_proj", WIDTH, inner)
        if config["attn_config"].get("qk_ln"):
            norm(p + "attn.q_ln")
            norm(p + "attn.k_ln", keys)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def mpt_logits(config, weights, ids):
    w, attn, n = float64(weights), config["attn_config"], len(ids)
    rms, keys = "rmsnorm" in config.get("norm_type", ""), kv_heads(config) * HEAD
    scale = config.get("logit_scale") or 1.0
    if scale == "inv_sqrt_d_model":
        scale = WIDTH**-0.5
    bias = 0.0
    if attn["alibi"]:
        slopes = alibi_slopes(HEADS, attn.get("alibi_bias_max", 8))
        bias = slopes[:, None, None] * (np.arange(n) - (n - 1))

    def norm(x, name):
        if rms:
            return rms_norm(x, w[name + ".weight"])
        return layer_norm(x, w[name + ".weight"], w.get(name + ".bias", 0.0))

    def linear(x, name):
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    x = w["transformer.wte.weight"][ids]
    if has_positions(config):
        x = x + w["transformer.wpe.weight"][:n]
    for i in range(LAYERS):
        p = f"transformer.blocks.{i}."
        qkv = linear(norm(x, p + "norm_1"), p + "attn.Wqkv")
        if attn.get("clip_qkv"):
            qkv = np.clip(qkv, -attn["clip_qkv"], attn["clip_qkv"])
        q, k, v = np.split(qkv, [WIDTH, WIDTH + keys], -1)
        if attn.get("qk_ln"):
            q, k = norm(q, p + "attn.q_ln"), norm(k, p + "attn.k_ln")
        q, k, v = (part.reshape(n, -1, HEAD) for part in (q, k, v))
        attended = attend(q, k, v, attn.get("softmax_scale"), bias)
        x = x + linear(attended, p + "attn.out_proj")
        x = x + linear(gelu(linear(norm(x, p + "norm_2"), p + "ffn.up_proj")), p + "ffn.down_proj")
    head = "transformer.wte.weight" if config.get("tie_word_embeddings", True) else "lm_head.weight"
    return scale * norm(x, "transformer.norm_f") @ w[head].T


OPTIONS = {
    "six-heads": config(),
    "biases": config(no_bias=False),
    "bias-max": config({"alibi_bias_max": 16}),
    "positions": config({"alibi": False}),
    "positions-and-biases": config({"alibi": False}, learned_pos_emb=True, no_bias=False),
    "no-positions": config({"alibi": False}, learned_pos_emb=False),
    "alibi-wants-no-table": config(learned_pos_emb=True),
    "qk-norm": config({"qk_ln": True}),
    "qk-norm-biases": config({"qk_ln": True}, no_bias=False),
    "qk-norm-after-clip": config({"qk_ln": True, "clip_qkv": 0.5}),
    "qk-rms-norm": config({"qk_ln": True}, norm_type="low_precision_rmsnorm"),
    "softmax-scale": config({"softmax_scale": 0.9}),
    "clip": config({"clip_qkv": 0.7}),
    "rms-norm": config(norm_type="rmsnorm", no_bias=False),
    "other-layer-norm": config(norm_type="layernorm"),
    "logit-scale": config(logit_scale=0.25),
    "logit-scale-by-width": config(logit_scale="inv_sqrt_d_model"),
    "multi-query": config({"attn_type": "multiquery_attention"}),
    "grouped": config({"attn_type": "grouped_query_attention", "kv_n_heads": 3, "qk_ln": True}),
    "narrow": config(expansion_ratio=2),
    "whole-float-ratio": config(expansion_ratio=2.0),
    "untied": config(tie_word_embeddings=False),
    "everything": config(
        {
            "alibi_bias_max": 4,
            "attn_type": "grouped_query_attention",
            "kv_n_heads": 2,
            "clip_qkv": 1.5,
            "qk_ln": True,
            "softmax_scale": 0.6,
        },
        no_bias=False,
        logit_scale=2.0,
        tie_word_embeddings=False,
        expansion_ratio=3,
    ),
}
IDS = np.random.default_rng(3).integers(0, PIECES, 40)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_computed_as_in_the_original_model(option, tmp_path):
    config = OPTIONS[option]
    weights = random_weights(config)
    write_model(tmp_path, config, weights)
    expected = mpt_logits(config, weights, IDS)
    check(MPTCausalLM.from_path(tmp_path), expected, IDS, columns=not has_positions(config))


def test_a_head_in_the_checkpoint_of_a_tied_model_is_not_used(tmp_path):
    weights = random_weights(CONFIG)
    expected = mpt_logits(CONFIG, weights, IDS)
    other = {"lm_head.weight": random_weights(OPTIONS["untied"])["lm_head.weight"]}
    write_model(tmp_path, CONFIG, weights | other)
    model = MPTCausalLM.from_path(tmp_path)
    check(model, expected, IDS)
    assert "output_embeddings.weight" not in model.state_dict()


def test_sequences_may_be_longer_than_those_of_the_training(tmp_path):
    weights = random_weights(CONFIG)
    write_model(tmp_path, CONFIG, weights)
    ids = np.random.default_rng(4).integers(0, PIECES, LONGEST + 30)
    check(MPTCausalLM.from_path(tmp_path), mpt_logits(CONFIG, weights, ids), ids)


@pytest.mark.parametrize("option", ["positions", "everything"])
def test_generated_pieces_of_prompts_of_several_lengths(option, tmp_path):
    config = OPTIONS[option]
    weights = random_weights(config)
    write_model(tmp_path, config, weights)
    prompts = [IDS[:3], IDS[3:12], IDS[12:13]]
    ids = np.stack([np.pad(prompt, (9 - len(prompt), 0)) for prompt in prompts])
    mask = np.stack([np.arange(9) >= 9 - len(prompt) for prompt in prompts])
    pieces = [[] for _ in prompts]
    greedy = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=5)
    generator = Generator(MPTCausalLM.from_path(tmp_path))
    for rows, new in generator(attention_mask=mask, ids=ids, config=greedy):
        for row, piece in zip(np.asarray(rows), np.asarray(new)[:, 0], strict=True):
            pieces[row].append(int(piece))
    for prompt, found in zip(prompts, pieces, strict=True):
        text = np.concatenate([prompt, found])
        best = mpt_logits(config, weights, text[:-1]).argmax(-1)
        assert found == best[len(prompt) - 1 :].tolist()


def test_the_table_of_positions_has_an_end(tmp_path):
    write_model(tmp_path, OPTIONS["positions"], random_weights(OPTIONS["positions"]))
    with pytest.raises(IndexError, match="position 64 at"):
        MPTCausalLM.from_path(tmp_path)(np.ones((1, LONGEST + 1), int))


def test_parameters_have_the_documented_names():
    documented = {
        "transformer.wte.weight": "decoder.embeddings.piece_embeddings.weight",
        "transformer.blocks.3.norm_1.weight": "decoder.layers.3.attn_input_layer_norm.weight",
        "transformer.blocks.3.attn.Wqkv.weight": "decoder.layers.3.mha.input.weight",
        "transformer.blocks.3.attn.out_proj.weight": "decoder.layers.3.mha.output.weight",
        "transformer.blocks.3.norm_2.weight": "decoder.layers.3.ffn_input_layer_norm.weight",
        "transformer.blocks.3.ffn.up_proj.weight": "decoder.layers.3.ffn.intermediate.weight",
        "transformer.blocks.3.ffn.down_proj.weight": "decoder.layers.3.ffn.output.weight",
        "transformer.norm_f.weight": "decoder.output_layer_norm.weight",
        "lm_head.weight": "output_embeddings.weight",
    }
    ours = {name: name for name in documented.values()}
    assert MPTCausalLM.state_dict_from_hf({name: name for name in documented}) == {
        new: old for old, new in documented.items()
    }
    assert MPTCausalLM.state_dict_to_hf(ours) == documented
    decoder = MPTDecoder.state_dict_from_hf({"transformer.blocks.0.norm_1.bias": 1})
    assert decoder == {"layers.0.attn_input_layer_norm.bias": 1}
    assert MPTDecoder.state_dict_to_hf(decoder) == {"blocks.0.norm_1.bias": 1}


# config.json.


@pytest.mark.parametrize("option", OPTIONS)
def test_config_json_comes_back(option):
    for kind in (MPTDecoder, MPTCausalLM):
        made = kind.config_from_hf(OPTIONS[option])
        written = kind.config_to_hf(made)
        assert kind.config_from_hf(written) == made
        assert isinstance(written["expansion_ratio"], int)
        assert not any("." in name for name in written)


def test_the_documented_defaults_are_those_of_an_empty_attn_config():
    required = {key: value for key, value in CONFIG.items() if key != "attn_config"}
    expected = MPTConfig(
        dtype="float32",
        hidden_width=WIDTH,
        n_attention_heads=HEADS,
        n_hidden_layers=LAYERS,
        n_pieces=PIECES,
        model_max_length=LONGEST,
    )
    nulls = dict.fromkeys(("attn_type", "alibi", "clip_qkv", "softmax_scale", "qk_ln"))
    for attn_config in (None, {}, nulls, {"attn_impl": "triton", "clip_qkv": 0}):
        assert MPTDecoder.config_from_hf(required | {"attn_config": attn_config}) == expected


def test_dropout_is_read_under_its_own_names_too():
    made = MPTDecoder.config_from_hf(config({"attn_pdrop": 0.25}, resid_pdrop=0.5))
    assert made.layer.attention.dropout_prob == 0.25
    assert made.layer.dropout_prob == 0.5
    both = config({"attn_pdrop": 0.25}, attention_probs_dropout_prob=0.75)
    assert MPTDecoder.config_from_hf(both).layer.attention.dropout_prob == 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (config({"prefix_lm": True}), "attn_config.prefix_lm = True is not supported"),
        (config({"attn_uses_sequence_id": True}), "attn_config.attn_uses_sequence_id = True"),
        (config({"qk_gn": True}), "attn_config.qk_gn"),
        (config({"rope": True}), "attn_config.rope"),
        (config({"sliding_window_size": 512}), "attn_config.sliding_window_size = 512"),
        (config({"attn_logit_softcapping": 30.0}), "attn_config.attn_logit_softcapping"),
        (config({"fused_qkv": False}), "attn_config.fused_qkv"),
        (config({"attn_type": "linear"}), "attn_config.attn_type = 'linear' is not supported"),
        (config({"attn_type": "grouped_query_attention"}), "needs kv_n_heads"),
        (config({"kv_n_heads": 2}), "attn_config.kv_n_heads = 2 does not go with"),
        (config({"alibi": 1}), "attn_config.alibi must be true or false, was: 1"),
        (config({"softmax_scale": -1}), "attn_config.softmax_scale must be positive, was: -1"),
        (config({"clip_qkv": "6"}), "attn_config.clip_qkv must be a number, was: '6'"),
        (CONFIG | {"attn_config": [1]}, "attn_config must be an object, was: [1]"),
        (config(ffn_config={"ffn_type": "mptglu"}), "ffn_config.ffn_type = 'mptglu'"),
        (config(norm_type="batchnorm"), "norm_type = 'batchnorm' is not supported"),
        (config(logit_scale="large"), "logit_scale must be a number, was: 'large'"),
        (config(expansion_ratio=2.5), "expansion_ratio must be a whole number, was: 2.5"),
        (config(no_bias="yes"), "no_bias must be true or false, was: 'yes'"),
        (config(final_logit_softcapping=30.0), "final_logit_softcapping = 30.0"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MPTDecoder.config_from_hf(options)


def test_missing_keys_are_named_together():
    names = ("d_model", "expansion_ratio", "max_seq_len", "n_heads", "n_layers", "no_bias")
    with pytest.raises(ValueError, match="Missing keys in Hugging Face MPT") as error:
        MPTDecoder.config_from_hf(dict.fromkeys(names) | {"model_type": "mpt"})
    assert str((*names, "vocab_size")) in str(error.value)


def test_an_activation_that_config_json_cannot_say():
    with pytest.raises(ValueError, match="other than gelu"):
        MPTDecoder.config_to_hf(MPTConfig(activation=Activation.ReLU))
