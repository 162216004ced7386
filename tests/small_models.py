"""Folders with small random models, for tests that need a model but not a particular one.

Every function writes config.json and model.safetensors and returns the folder; the same seed gives
the same weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from checkpoint_writers import safetensors

Weights = dict[str, npt.NDArray[np.float32]]

_STORED_AS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def _stored(array: npt.NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "bfloat16":  # the upper half of a float32
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def write_model(folder: Path, config: dict[str, Any], weights: Weights) -> Path:
    """The weights are stored in the config's dtype."""
    dtype = config.get("dtype", "float32")
    entries: dict[str, Any] = {}
    data = bytearray()
    for name, array in weights.items():
        raw = _stored(array, dtype)
        entries[name] = {
            "dtype": _STORED_AS[dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors(header, bytes(data)))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class _Normal:
    """Random weights whose products keep the size of their input."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> npt.NDArray[np.float32]:
        return (self.rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    def norm(self, width: int) -> npt.NDArray[np.float32]:
        return (1 + 0.1 * self.rng.standard_normal(width)).astype(np.float32)


def llama(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    layers: int = 2,
    pieces: int = 50,
    positions: int | None = None,
    dtype: str = "float32",
    spread: float = 1.0,
) -> Path:
    """``spread`` scales the logits: larger ones make a distribution with fewer likely pieces."""
    normal, inner, head = _Normal(seed), 48, width // heads
    weights = {
        "model.embed_tokens.weight": normal(pieces, width) * np.float32(np.sqrt(width)),
        "model.norm.weight": normal.norm(width),
        "lm_head.weight": normal(pieces, width) * np.float32(spread),
    }
    for i in range(layers):
        p = f"model.layers.{i}."
        weights |= {
            p + "input_layernorm.weight": normal.norm(width),
            p + "post_attention_layernorm.weight": normal.norm(width),
            p + "self_attn.q_proj.weight": normal(width, width),
            p + "self_attn.k_proj.weight": normal(kv_heads * head, width),
            p + "self_attn.v_proj.weight": normal(kv_heads * head, width),
            p + "self_attn.o_proj.weight": normal(width, width),
            p + "mlp.gate_proj.weight": normal(inner, width),
            p + "mlp.up_proj.weight": normal(inner, width),
            p + "mlp.down_proj.weight": normal(width, inner),
        }
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "vocab_size": pieces,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": positions,
        "dtype": dtype,
    }
    return write_model(folder, config, weights)


def gpt_neox(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 32,
    heads: int = 4,
    layers: int = 2,
    pieces: int = 50,
    positions: int = 64,
    dtype: str = "float32",
) -> Path:
    normal, inner = _Normal(seed), 48
    weights = {
        "gpt_neox.embed_in.weight": normal(pieces, width) * np.float32(np.sqrt(width)),
        "embed_out.weight": normal(pieces, width),
    }
    norms = ["gpt_neox.final_layer_norm"]
    linears: dict[str, tuple[int, int]] = {}
    for i in range(layers):
        p = f"gpt_neox.layers.{i}."
        norms += [p + "input_layernorm", p + "post_attention_layernorm"]
        linears |= {
            p + "attention.query_key_value": (3 * width, width),
            p + "attention.dense": (width, width),
            p + "mlp.dense_h_to_4h": (inner, width),
            p + "mlp.dense_4h_to_h": (width, inner),
        }
    for name in norms:
        weights[f"{name}.weight"] = normal.norm(width)
        weights[f"{name}.bias"] = normal(width)
    for name, shape in linears.items():
        weights[f"{name}.weight"] = normal(*shape)
        weights[f"{name}.bias"] = normal(shape[0])
    config = {
        "model_type": "gpt_neox",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "vocab_size": pieces,
        "max_position_embeddings": positions,
        "layer_norm_eps": 1e-5,
        "rotary_pct": 0.5,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "dtype": dtype,
    }
    return write_model(folder, config, weights)


def bert(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 32,
    heads: int = 4,
    layers: int = 2,
    pieces: int = 50,
    positions: int = 40,
    types: int = 2,
    dtype: str = "float32",
) -> Path:
    normal, inner = _Normal(seed), 48
    root = np.float32(np.sqrt(width))
    weights = {
        "embeddings.word_embeddings.weight": normal(pieces, width) * root,
        "embeddings.token_type_embeddings.weight": normal(types, width) * root,
        "embeddings.position_embeddings.weight": normal(positions, width) * root,
    }
    norms = ["embeddings.LayerNorm"]
    linears: dict[str, tuple[int, int]] = {}
    for i in range(layers):
        p = f"encoder.layer.{i}."
        norms += [p + "attention.output.LayerNorm", p + "output.LayerNorm"]
        linears |= {p + f"attention.self.{name}": (width, width) for name in _BERT_PROJECTIONS}
        linears[p + "attention.output.dense"] = (width, width)
        linears[p + "intermediate.dense"] = (inner, width)
        linears[p + "output.dense"] = (width, inner)
    for name in norms:
        weights[f"{name}.weight"] = normal.norm(width)
        weights[f"{name}.bias"] = normal(width)
    for name, shape in linears.items():
        weights[f"{name}.weight"] = normal(*shape)
        weights[f"{name}.bias"] = normal(shape[0])
    config = {
        "model_type": "bert",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "vocab_size": pieces,
        "type_vocab_size": types,
        "max_position_embeddings": positions,
        "layer_norm_eps": 1e-5,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "dtype": dtype,
    }
    return write_model(folder, config, weights)


_BERT_PROJECTIONS = ("query", "key", "value")


def read_weights(folder: Path) -> Weights:
    """The float32 weights of a folder that ``write_model`` wrote."""
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }
