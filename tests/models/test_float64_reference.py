"""Small random models against a float64 statement of their architecture in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from models.float64 import attend, check, float64, layer_norm, rms_norm, rotate
from small_models import write_model

from curated_transformers.models.gpt_neox import GPTNeoXCausalLM
from curated_transformers.models.llama import LlamaCausalLM

WIDTH, HEADS, INNER, LAYERS, PIECES = 32, 4, 48, 2, 50
HEAD = WIDTH // HEADS
RNG = np.random.default_rng(7)


def normal(*shape):
    return (RNG.standard_normal(shape) * 0.3).astype(np.float32)


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
    w = float64(w)
    x = w["model.embed_tokens.weight"][ids]
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        n = rms_norm(x, w[p + "input_layernorm.weight"])
        q = rotate((n @ w[p + "self_attn.q_proj.weight"].T).reshape(-1, HEADS, HEAD), HEAD, 10000)
        k = rotate(
            (n @ w[p + "self_attn.k_proj.weight"].T).reshape(-1, kv_heads, HEAD), HEAD, 10000
        )
        v = (n @ w[p + "self_attn.v_proj.weight"].T).reshape(-1, kv_heads, HEAD)
        x = x + attend(q, k, v) @ w[p + "self_attn.o_proj.weight"].T
        n = rms_norm(x, w[p + "post_attention_layernorm.weight"])
        gate = n @ w[p + "mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (n @ w[p + "mlp.up_proj.weight"].T)
        x = x + inner @ w[p + "mlp.down_proj.weight"].T
    return rms_norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


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
    w = float64(w)

    def norm(x, name):
        return layer_norm(x, w[name + ".weight"], w[name + ".bias"])

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


def neox_config():
    return {
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


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_gpt_neox(tmp_path, parallel, fraction):
    weights = neox_weights()
    config = neox_config() | {"rotary_pct": fraction, "use_parallel_residual": parallel}
    write_model(tmp_path, config, weights)
    ids = RNG.integers(0, PIECES, 13)
    expected = neox_logits(weights, ids, parallel, int(fraction * HEAD))
    check(GPTNeoXCausalLM.from_path(tmp_path), expected, ids)


def test_a_missing_parameter_is_named(tmp_path):
    weights = neox_weights()
    del weights["gpt_neox.layers.1.attention.dense.bias"]
    write_model(tmp_path, neox_config(), weights)
    with pytest.raises(ValueError, match="not updated/replaced") as error:
        GPTNeoXCausalLM.from_path(tmp_path)
    ours, theirs = "decoder.layers.1.mha.output.bias", "gpt_neox.layers.1.attention.dense.bias"
    assert f"{ours} (`{theirs}` in the checkpoint)" in str(error.value)
