"""GGUF files of variants, as llama.cpp's converters write them.

The names and keys are theirs; what they do to the weights is here too: rows of Llama's queries and
keys are put into the order of neighbouring pairs, 1 is added to Gemma's norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from checkpoint_writers import BOOL, FLOAT32, STRING, UINT32, gguf
from models.variants import Variant

F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
MODEL_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
MORE_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(variant: Variant, name: str) -> str:
    """transformers' name of a parameter -> the one in the file."""
    module, _, part = name.rpartition(".")
    if not module.startswith("model.layers."):
        return f"{MODEL_NAMES[module]}.{part}"
    names = LAYER_NAMES
    if variant.architecture in ("gemma2", "gemma3_text"):
        names = LAYER_NAMES | MORE_NORMS
    _, _, number, module = module.split(".", 3)
    return f"blk.{number}.{names[module]}.{part}"


def converted(variant: Variant, name: str, weight: np.ndarray) -> np.ndarray:
    """A weight as the file has it."""
    config = variant.config
    if variant.architecture.startswith("gemma") and name.endswith("norm.weight"):
        return weight + np.float32(1)
    if ARCHITECTURES[variant.architecture] != "llama":
        return weight
    heads = config["num_attention_heads"]
    if ".q_proj." in name or ".k_proj." in name:
        n = heads if ".q_proj." in name else config.get("num_key_value_heads", heads)
        halves = weight.reshape(n, 2, weight.shape[0] // n // 2, *weight.shape[1:])
        return halves.swapaxes(1, 2).reshape(weight.shape)
    return weight


def metadata(variant: Variant) -> dict[str, int | float]:
    """Keys without the architecture's prefix."""
    config = variant.config
    heads, kind = config["num_attention_heads"], variant.architecture
    head_width = config.get("head_dim", config["hidden_size"] // heads)
    fraction = config.get("partial_rotary_factor", 1.0)
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    base = 1e6 if kind == "gemma3_text" else 1e4
    values: dict[str, int | float] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": float(rope.get("rope_theta", config.get("rope_theta", base))),
        "vocab_size": config["vocab_size"],
    }
    if kind in ("llama", "mistral", "phi3"):
        values["rope.dimension_count"] = int(head_width * fraction)
    if kind not in ("phi3", "qwen2") and "head_dim" in config:
        values["attention.key_length"] = values["attention.value_length"] = head_width
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        values["attention.sliding_window"] = config["sliding_window"]
    if kind == "gemma3_text" and config["sliding_window_pattern"] != 6:
        values["attention.sliding_window_pattern"] = config["sliding_window_pattern"]
    if "rope_local_base_freq" in config:
        values["rope.freq_base_swa"] = config["rope_local_base_freq"]
    if kind == "gemma2":
        values["attn_logit_softcapping"] = config["attn_logit_softcapping"]
    if config.get("final_logit_softcapping"):
        values["final_logit_softcapping"] = config["final_logit_softcapping"]
    return values | scaling(variant, rope)


def scaling(variant: Variant, rope: dict[str, Any]) -> dict[str, Any]:
    config, kind = variant.config, rope.get("rope_type", rope.get("type", "default"))
    trained = config.get(
        "original_max_position_embeddings", rope.get("original_max_position_embeddings")
    )
    if kind == "longrope":
        factor = rope.get("factor", config["max_position_embeddings"] / trained)
        grown = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
        return {
            "rope.scaling.original_context_length": trained,
            "rope.scaling.attn_factor": grown,
        }
    if kind == "linear":
        return {"rope.scaling.type": kind, "rope.scaling.factor": rope["factor"]}
    if kind == "yarn":
        betas = {
            f"rope.scaling.yarn_{key}": float(rope[key])
            for key in ("beta_fast", "beta_slow")
            if key in rope
        }
        return {
            "rope.scaling.type": kind,
            "rope.scaling.factor": rope["factor"],
            "rope.scaling.original_context_length": trained,
            **betas,
        }
    return {}


def extra_tensors(variant: Variant) -> dict[str, np.ndarray]:
    """Factors of the angles."""
    config = variant.config
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "longrope":
        return {
            f"rope_factors_{which}.weight": np.asarray(rope[f"{which}_factor"], dtype=np.float32)
            for which in ("short", "long")
        }
    if kind == "llama3":
        heads = config["num_attention_heads"]
        width = config.get("head_dim", config["hidden_size"] // heads)
        base = rope.get("rope_theta", config.get("rope_theta"))
        return {"rope_freqs.weight": llama3_factors(rope, width, base)}
    return {}


def llama3_factors(rope: dict[str, Any], width: int, base: float) -> np.ndarray:
    trained = rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    factors = []
    for pair in range(width // 2):
        turns = trained / (2 * math.pi * base ** (2 * pair / width))
        if turns > high:
            factors.append(1.0)
        elif turns < low:
            factors.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.asarray(factors, dtype=np.float32)


def write_gguf(
    path: Path,
    variant: Variant,
    weights: dict[str, np.ndarray],
    kind: int | Callable[[str], int] = F32,
    quantize: Callable[[np.ndarray, int], np.ndarray] | None = None,
    **changes: Any,
) -> None:
    """``weights`` by transformers' names. Matrices are stored as ``kind``, which may depend on
    their names in the file, with the bytes that ``quantize`` makes. ``changes`` of the metadata
    have two underscores for a dot; None leaves a key out."""
    architecture = ARCHITECTURES[variant.architecture]
    values = metadata(variant)
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    entries = [
        ("general.architecture", STRING, architecture),
        ("general.name", STRING, "test"),
        ("tokenizer.ggml.padding_token_id", UINT32, 0),
    ]
    kinds = {int: UINT32, float: FLOAT32, str: STRING, bool: BOOL}
    for key, value in values.items():
        if value is not None:
            typed = value if isinstance(value, tuple) else (kinds[type(value)], value)
            entries.append((f"{architecture}.{key}", *typed))
    arrays = {
        gguf_name(variant, name): converted(variant, name, weight)
        for name, weight in weights.items()
    }
    tensors, data = [], b""
    for name, array in (arrays | extra_tensors(variant)).items():
        stored = F32 if array.ndim == 1 else kind if isinstance(kind, int) else kind(name)
        raw = array.astype("<f4") if stored == F32 or quantize is None else quantize(array, stored)
        tensors.append((name, list(array.shape[::-1]), stored, len(data)))
        data += raw.tobytes()
        data += b"\0" * (-len(data) % 32)
    path.write_bytes(gguf(entries, tensors, data))
