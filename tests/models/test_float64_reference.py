"""Small random models against a float64 statement of their architecture in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import write_model

from curated_transformers.models.gpt_neox import GPTNeoXCausalLM
from curated_transformers.models.llama import LlamaCausalLM

WIDTH, HEADS, INNER, LAYERS, PIECES = 32, 4, 48, 2, 50
HEAD = WIDTH // HEADS
RNG = np.random.default_rng(7)


def normal(*shape):
    return (RNG.standard_normal(shape) * 0.3).astype(np.float32)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def rotate(x, width, base):
    """x [seq, heads, head_width]; the first `width` features by halves."""
    angles = np.outer(np.arange(len(x)), base ** (-np.arange(0, width, 2) / width))[:, None]
    a, b, rest = x[..., : width // 2], x[..., width // 2 : width], x[..., width:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)


def attend(q, k, v):
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    return np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(len(q), -1)


def llama_weights(kv_heads):
    weights = {
        "model.embed_tokens.weight": normal(PIECES, WIDTH),
        "model.norm.weight": 1 + normal(WIDTH),
        "lm_head.weight": normal(PIECES, WIDTH),
    }
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        weights[p + "input_layernorm.weight"] = 1 + normal(WIDTH)
        weights[p + "post_attention_layernorm.weight"] = 1 + normal(WIDTH)
        weights[p + "self_attn.q_proj.weight"] = normal(WIDTH, WIDTH)
        weights[p + "self_attn.k_proj.weight"] = normal(kv_heads * HEAD, WIDTH)
        weights[p + "self_attn.v_proj.weight"] = normal(kv_heads * HEAD, WIDTH)
        weights[p + "self_attn.o_proj.weight"] = normal(WIDTH, WIDTH)
        weights[p + "mlp.gate_proj.weight"] = normal(INNER, WIDTH)
        weights[p + "mlp.up_proj.weight"] = normal(INNER, WIDTH)
        weights[p + "mlp.down_proj.weight"] = normal(WIDTH, INNER)
    return weights


def llama_logits(w, ids, kv_heads):
    w = {name: array.astype(np.float64) for name, array in w.items()}

    def rms(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        n = rms(x, w[p + "input_layernorm.weight"])
        q = rotate((n @ w[p + "self_attn.q_proj.weight"].T).reshape(-1, HEADS, HEAD), HEAD, 10000)
        k = rotate(
            (n @ w[p + "self_attn.k_proj.weight"].T).reshape(-1, kv_heads, HEAD), HEAD, 10000
        )
        v = (n @ w[p + "self_attn.v_proj.weight"].T).reshape(-1, kv_heads, HEAD)
        x = x + attend(q, k, v) @ w[p + "self_attn.o_proj.weight"].T
        n = rms(x, w[p + "post_attention_layernorm.weight"])
        gate = n @ w[p + "mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (n @ w[p + "mlp.up_proj.weight"].T)
        x = x + inner @ w[p + "mlp.down_proj.weight"].T
    return rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


def neox_weights():
    weights = {
        "gpt_neox.embed_in.weight": normal(PIECES, WIDTH),
        "gpt_neox.final_layer_norm.weight": 1 + normal(WIDTH),
        "gpt_neox.final_layer_norm.bias": normal(WIDTH),
        "embed_out.weight": normal(PIECES, WIDTH),
    }
    shapes = {
        "attention.query_key_value": (3 * WIDTH, WIDTH),
        "attention.dense": (WIDTH, WIDTH),
        "mlp.dense_h_to_4h": (INNER, WIDTH),
        "mlp.dense_4h_to_h": (WIDTH, INNER),
    }
    for i in range(LAYERS):
        p = f"gpt_neox.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[p + name + ".weight"] = 1 + normal(WIDTH)
            weights[p + name + ".bias"] = normal(WIDTH)
        for name, shape in shapes.items():
            weights[p + name + ".weight"] = normal(*shape)
            weights[p + name + ".bias"] = normal(shape[0])
    return weights


def neox_logits(w, ids, parallel, rotary_width):
    w = {name: array.astype(np.float64) for name, array in w.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def linear(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def ffn(x, p):
        inner = linear(x, p + "mlp.dense_h_to_4h")
        return linear(np.maximum(inner, 0), p + "mlp.dense_4h_to_h")

    x = w["gpt_neox.embed_in.weight"][ids]
    for i in range(LAYERS):
        p = f"gpt_neox.layers.{i}."
        qkv = linear(norm(x, p + "input_layernorm"), p + "attention.query_key_value")
        q, k, v = np.split(qkv.reshape(-1, HEADS, 3 * HEAD), 3, -1)
        attended = attend(rotate(q, rotary_width, 10000), rotate(k, rotary_width, 10000), v)
        h = x + linear(attended, p + "attention.dense")
        x = h + ffn(norm(x if parallel else h, p + "post_attention_layernorm"), p)
    return norm(x, "gpt_neox.final_layer_norm") @ w["embed_out.weight"].T


def check(model, expected, ids):
    logits = np.asarray(model(ids[None]).logits)[0]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-5)
    # left padding, then the cache, must not change anything
    padded = np.concatenate([[0, 0, 0], ids])[None]
    mask = np.arange(padded.shape[1])[None] >= 3
    first = model(padded[:, :-2], mask[:, :-2], store_cache=True)
    rest = model(padded[:, -2:], mask, cache=first.cache)
    np.testing.assert_allclose(np.asarray(rest.logits)[0] / scale, expected[-2:] / scale, atol=1e-5)
    assert not np.asarray(first.logits)[0, :3].any()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [4, 150])
def test_llama(tmp_path, kv_heads, length):
    weights = llama_weights(kv_heads)
    config = {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "vocab_size": PIECES,
        "rms_norm_eps": 1e-5,
        "dtype": "float32",
    }
    write_model(tmp_path, config, weights)
    ids = RNG.integers(0, PIECES, length)
    check(LlamaCausalLM.from_path(tmp_path), llama_logits(weights, ids, kv_heads), ids)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_gpt_neox(tmp_path, parallel, fraction):
    weights = neox_weights()
    config = {
        "model_type": "gpt_neox",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "relu",
        "vocab_size": PIECES,
        "max_position_embeddings": 64,
        "layer_norm_eps": 1e-5,
        "rotary_pct": fraction,
        "use_parallel_residual": parallel,
        "torch_dtype": "float32",
    }
    write_model(tmp_path, config, weights)
    ids = RNG.integers(0, PIECES, 13)
    expected = neox_logits(weights, ids, parallel, int(fraction * HEAD))
    check(GPTNeoXCausalLM.from_path(tmp_path), expected, ids)


def test_a_missing_parameter_is_named(tmp_path):
    weights = neox_weights()
    del weights["gpt_neox.layers.1.attention.dense.bias"]
    config = {
        "model_type": "gpt_neox",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "relu",
        "vocab_size": PIECES,
        "max_position_embeddings": 64,
        "layer_norm_eps": 1e-5,
        "torch_dtype": "float32",
    }
    write_model(tmp_path, config, weights)
    with pytest.raises(ValueError, match="not updated/replaced") as error:
        GPTNeoXCausalLM.from_path(tmp_path)
    ours, theirs = "decoder.layers.1.mha.output.bias", "gpt_neox.layers.1.attention.dense.bias"
    assert f"{ours} (`{theirs}` in the checkpoint)" in str(error.value)
