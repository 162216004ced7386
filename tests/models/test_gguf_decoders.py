"""Falcon, GPT-NeoX and MPT from GGUF files: the same models as from checkpoints.

What llama.cpp's converter does with a checkpoint is stated here: other names, and queries, keys and
values of the projections one after the other.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from checkpoint_writers import BOOL as FLAG
from checkpoint_writers import FLOAT32, STRING, UINT32, gguf
from models import test_falcon as falcon
from models import test_float64_reference as neox
from models import test_mpt as mpt
from small_models import write_model

from curated_transformers.models import AutoCausalLM
from curated_transformers.models.falcon import FalconCausalLM, FalconDecoder
from curated_transformers.models.gpt_neox import GPTNeoXCausalLM
from curated_transformers.models.mpt import MPTCausalLM

NAMES = {
    "falcon": {
        "transformer.word_embeddings": "token_embd",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
        "transformer.h.{}.input_layernorm": "blk.{}.attn_norm",
        "transformer.h.{}.ln_attn": "blk.{}.attn_norm_2",
        "transformer.h.{}.ln_mlp": "blk.{}.attn_norm",
        "transformer.h.{}.self_attention.query_key_value": "blk.{}.attn_qkv",
        "transformer.h.{}.self_attention.dense": "blk.{}.attn_output",
        "transformer.h.{}.mlp.dense_h_to_4h": "blk.{}.ffn_up",
        "transformer.h.{}.mlp.dense_4h_to_h": "blk.{}.ffn_down",
    },
    "gptneox": {
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.final_layer_norm": "output_norm",
        "embed_out": "output",
        "gpt_neox.layers.{}.input_layernorm": "blk.{}.attn_norm",
        "gpt_neox.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
        "gpt_neox.layers.{}.attention.query_key_value": "blk.{}.attn_qkv",
        "gpt_neox.layers.{}.attention.dense": "blk.{}.attn_output",
        "gpt_neox.layers.{}.mlp.dense_h_to_4h": "blk.{}.ffn_up",
        "gpt_neox.layers.{}.mlp.dense_4h_to_h": "blk.{}.ffn_down",
    },
    "mpt": {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.norm_f": "output_norm",
        "lm_head": "output",
        "transformer.blocks.{}.norm_1": "blk.{}.attn_norm",
        "transformer.blocks.{}.norm_2": "blk.{}.ffn_norm",
        "transformer.blocks.{}.attn.Wqkv": "blk.{}.attn_qkv",
        "transformer.blocks.{}.attn.q_ln": "blk.{}.attn_q_norm",
        "transformer.blocks.{}.attn.k_ln": "blk.{}.attn_k_norm",
        "transformer.blocks.{}.attn.out_proj": "blk.{}.attn_output",
        "transformer.blocks.{}.ffn.up_proj": "blk.{}.ffn_up",
        "transformer.blocks.{}.ffn.down_proj": "blk.{}.ffn_down",
        "transformer.blocks.{}.ffn.act": "blk.{}.ffn",
    },
}


def gguf_name(architecture, name):
    module, _, part = name.rpartition(".")
    number = "".join(re.findall(r"\.(\d+)\.", module))
    pattern = re.sub(r"\.\d+\.", ".{}.", module)
    return NAMES[architecture][pattern].format(number) + f".{part}"


def in_order(array, n_groups, n_queries, head):
    """Rows of groups of query heads, a key and a value, as all queries, all keys, all values."""
    groups = array.reshape(n_groups, n_queries + 2, head, *array.shape[1:])
    parts = groups[:, :-2], groups[:, -2], groups[:, -1]
    return np.concatenate([part.reshape(-1, *array.shape[1:]) for part in parts])


def write_gguf(path, architecture, entries, weights, qkv_groups=None):
    """F32 tensors, with the projections of `qkv_groups` (see `in_order`) in order."""
    infos, data = [], b""
    for name, array in weights.items():
        if qkv_groups and "query_key_value" in name:
            array = in_order(array, *qkv_groups)
        infos.append((gguf_name(architecture, name), list(array.shape[::-1]), 0, len(data)))
        data += array.tobytes().ljust(-(-array.nbytes // 32) * 32, b"\0")
    prefixed = [(f"{architecture}.{key}", kind, value) for key, kind, value in entries]
    head = [("general.architecture", STRING, architecture)]
    path.write_bytes(gguf(head + prefixed, infos, data))
    return path


def sizes(width, inner, layers, heads):
    return [
        ("context_length", UINT32, 64),
        ("embedding_length", UINT32, width),
        ("feed_forward_length", UINT32, inner),
        ("block_count", UINT32, layers),
        ("attention.head_count", UINT32, heads),
        ("attention.layer_norm_epsilon", FLOAT32, 1e-5),
    ]


def assert_same_model(kind, file, folder):
    """A projection's rows lie elsewhere and are the same numbers; so are the results."""
    ids = np.random.default_rng(5).integers(0, 50, (2, 30))
    model = AutoCausalLM.from_path(file)
    assert isinstance(model, kind)
    ours, expected = model(ids), kind.from_path(folder)(ids)
    for state, other in zip(ours.all_outputs, expected.all_outputs, strict=True):
        np.testing.assert_allclose(np.asarray(state), np.asarray(other), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        np.asarray(ours.logits), np.asarray(expected.logits), rtol=0, atol=1e-4
    )


def falcon_file(path, config):
    entries = sizes(falcon.WIDTH, 4 * falcon.WIDTH, falcon.LAYERS, falcon.HEADS)
    kv = falcon.kv_heads(config)
    entries += [("attention.head_count_kv", UINT32, kv), ("vocab_size", UINT32, falcon.PIECES)]
    weights = falcon.random_weights(config)
    return write_gguf(path, "falcon", entries, weights, (kv, falcon.HEADS // kv, falcon.HEAD))


FALCON = pytest.mark.parametrize(
    "config",
    [
        falcon.MULTI_QUERY,
        falcon.HEADS_OF_THEIR_OWN,
        falcon.NEW,
        falcon.NEW | {"num_ln_in_parallel_attn": 1},
    ],
    ids=["multi-query", "heads", "new", "new-one-norm"],
)


@FALCON
def test_falcon(config, tmp_path):
    file = falcon_file(tmp_path / "model.gguf", config)
    folder = write_model(tmp_path / "checkpoint", config, falcon.random_weights(config))
    assert_same_model(FalconCausalLM, file, folder)


def test_the_projection_of_a_file_is_not_that_of_config_json(tmp_path):
    file = falcon_file(tmp_path / "model.gguf", falcon.NEW)
    with pytest.raises(ValueError, match="cannot say the order of queries, keys and values"):
        FalconDecoder.config_to_hf(FalconDecoder.from_path(file).config)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_gpt_neox(parallel, fraction, tmp_path):
    entries = sizes(neox.WIDTH, neox.INNER, neox.LAYERS, neox.HEADS)
    entries += [
        ("rope.dimension_count", UINT32, int(fraction * neox.HEAD)),
        ("use_parallel_residual", FLAG, int(parallel)),
    ]
    weights = neox.neox_weights()
    groups = (neox.HEADS, 1, neox.HEAD)
    file = write_gguf(tmp_path / "model.gguf", "gptneox", entries, weights, groups)
    config = neox.neox_config() | {
        "hidden_act": "gelu",
        "rotary_pct": fraction,
        "use_parallel_residual": parallel,
    }
    folder = write_model(tmp_path / "checkpoint", config, weights)
    assert_same_model(GPTNeoXCausalLM, file, folder)


@pytest.mark.parametrize(
    "option",
    ["six-heads", "bias-max", "clip", "biases", "positions", "qk-norm", "multi-query", "untied"],
)
def test_mpt(option, tmp_path):
    config = mpt.OPTIONS[option]
    attn = config["attn_config"]
    entries = sizes(mpt.WIDTH, 4 * mpt.WIDTH, mpt.LAYERS, mpt.HEADS)
    bias = float(attn.get("alibi_bias_max", 8)) if attn["alibi"] else 0.0
    entries.append(("attention.max_alibi_bias", FLOAT32, bias))
    if "clip_qkv" in attn:
        entries.append(("attention.clamp_kqv", FLOAT32, attn["clip_qkv"]))
    if "attn_type" in attn:
        entries.append(("attention.head_count_kv", UINT32, mpt.kv_heads(config)))
    weights = mpt.random_weights(config)
    file = write_gguf(tmp_path / "model.gguf", "mpt", entries, weights)
    folder = write_model(tmp_path / "checkpoint", config, weights)
    assert_same_model(MPTCausalLM, file, folder)


@pytest.mark.parametrize(
    "missing",
    [
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.layer_norm_epsilon",
        "context_length",
    ],
)
def test_missing_metadata_is_named(missing, tmp_path):
    entries = [
        entry for entry in sizes(neox.WIDTH, neox.INNER, 2, neox.HEADS) if entry[0] != missing
    ]
    file = write_gguf(tmp_path / "model.gguf", "gptneox", entries, neox.neox_weights())
    name = "attention.layer_norm_" if "norm" in missing else f"'{missing}'"
    with pytest.raises(ValueError, match=f"Missing keys .*gptneox.*{name}"):
        GPTNeoXCausalLM.from_path(file)


def test_a_file_without_embeddings_is_refused(tmp_path):
    file = write_gguf(tmp_path / "model.gguf", "gptneox", sizes(32, 48, 2, 4), {})
    with pytest.raises(ValueError, match=r"no `token_embd\.weight`"):
        GPTNeoXCausalLM.from_path(file)


def test_tensors_that_the_program_has_no_place_for_are_refused(tmp_path):
    config = mpt.CONFIG
    weights = mpt.random_weights(config)
    entries = sizes(mpt.WIDTH, 4 * mpt.WIDTH, mpt.LAYERS, mpt.HEADS)
    # Of files whose activations were quantized.
    weights["transformer.blocks.0.ffn.act.scales"] = np.ones(4 * mpt.WIDTH, np.float32)
    file = write_gguf(tmp_path / "model.gguf", "mpt", entries, weights)
    with pytest.raises(ValueError, match=r"`blk\.0\.ffn\.scales`"):
        MPTCausalLM.from_path(file)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NAMES)
def test_names_are_those_of_the_gguf_package(architecture):
    gguf_package = pytest.importorskip("gguf", reason="`make oracle` installs gguf")
    number = {name: number for number, name in gguf_package.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf_package.get_tensor_name_map(number, 5)
    for theirs, ours in NAMES[architecture].items():
        found = names.get_name(theirs.format(4) + ".weight", try_suffixes=(".weight",))
        assert found == ours.format(4) + ".weight"
    keys = gguf_package.Keys
    for key, written in {
        keys.LLM.CONTEXT_LENGTH: "context_length",
        keys.LLM.EMBEDDING_LENGTH: "embedding_length",
        keys.LLM.FEED_FORWARD_LENGTH: "feed_forward_length",
        keys.LLM.BLOCK_COUNT: "block_count",
        keys.LLM.USE_PARALLEL_RESIDUAL: "use_parallel_residual",
        keys.Attention.HEAD_COUNT: "attention.head_count",
        keys.Attention.HEAD_COUNT_KV: "attention.head_count_kv",
        keys.Attention.LAYERNORM_EPS: "attention.layer_norm_epsilon",
        keys.Attention.MAX_ALIBI_BIAS: "attention.max_alibi_bias",
        keys.Attention.CLAMP_KQV: "attention.clamp_kqv",
        keys.Rope.DIMENSION_COUNT: "rope.dimension_count",
        keys.Rope.FREQ_BASE: "rope.freq_base",
    }.items():
        assert key.format(arch=architecture) == f"{architecture}.{written}"


@pytest.mark.slow
def test_falcon_as_transformers_reads_the_file(tmp_path):
    """Which it does for the older architecture, where the order of rows is the same, with the
    default epsilon."""
    torch = pytest.importorskip("torch", reason="`make oracle` installs torch and transformers")
    from transformers import FalconConfig, FalconForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    file = falcon_file(tmp_path / "model.gguf", falcon.MULTI_QUERY)
    read = load_gguf_checkpoint(str(file), return_tensors=False)
    reference = FalconForCausalLM(
        FalconConfig(**read["config"] | {"tie_word_embeddings": False})
    ).eval()
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=reference)
    reference.load_state_dict(tensors["tensors"])
    ids = np.random.default_rng(5).integers(0, 50, (1, 30))
    with torch.inference_mode():
        expected = reference.transformer(torch.from_numpy(ids)).last_hidden_state.numpy()
    ours = np.asarray(FalconDecoder.from_path(file)(ids).last_hidden_layer_state)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)
