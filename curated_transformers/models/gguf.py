"""What the architectures of GGUF files share: llama.cpp's names of parameters and of metadata."""

from __future__ import annotations

from typing import Any

from ..checkpoint import GGUFFile
from .hf_hub.conversion import HFConfig
from .parameters import ParameterNames

GGUF_NAMES = ParameterNames(
    model={
        "token_embd": "piece_embeddings",
        "output_norm": "output_norm",
        "output": "head",
    },
    layer={
        "attn_norm": "attention_input_norm",
        "ffn_norm": "ffn_input_norm",
        "attn_qkv": "qkv",
        "attn_q": "query",
        "attn_k": "key",
        "attn_v": "value",
        "attn_q_norm": "query_norm",
        "attn_k_norm": "key_norm",
        "attn_output": "attention_output",
        "post_attention_norm": "attention_output_norm",
        "ffn_gate": "ffn_gate",
        "ffn_up": "ffn_up",
        "ffn_down": "ffn_down",
        "post_ffw_norm": "ffn_output_norm",
    },
    layer_path="blk.{}.",
    ignored=r"^rope_(freqs|factors_short|factors_long)\.weight$",
)


def gguf_config(file: GGUFFile, architecture: str) -> HFConfig:
    """The metadata of an architecture, by key without its prefix."""
    prefix = f"{architecture}."
    values = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    return HFConfig(values, f"{file.path}: GGUF {architecture}")


def decoder_arguments(file: GGUFFile, architecture: str, period: int = 0) -> dict[str, Any]:
    """Arguments of a Llama-like configuration.

    ``period``: of how many layers the last is not local, where there is a window and the file does
    not say; 0: all layers are. ``ValueError`` for what is not supported.
    """
    gguf = gguf_config(file, architecture)
    _refuse(gguf)
    if architecture != "gemma3":  # whose local layers have a base of their own
        gguf.refuse("rope.freq_base_swa", gguf.get("rope.freq_base", 10000.0))
    gguf.require(
        [
            "embedding_length",
            "feed_forward_length",
            "block_count",
            "attention.head_count",
            "attention.layer_norm_rms_epsilon",
        ]
    )
    width, heads = gguf["embedding_length"], gguf["attention.head_count"]
    head_width = gguf.get("attention.key_length", width // heads)
    gguf.refuse("attention.value_length", head_width)
    return {
        "dtype": "float32",
        "hidden_width": width,
        "intermediate_width": gguf["feed_forward_length"],
        "rms_norm_eps": gguf["attention.layer_norm_rms_epsilon"],
        "n_query_heads": heads,
        "n_key_value_heads": gguf.get("attention.head_count_kv", heads),
        "n_hidden_layers": gguf["block_count"],
        "n_pieces": file.infos["token_embd.weight"].shape[0],
        "rotary_embedding_base": gguf.get("rope.freq_base", 10000.0),
        "rotary_embedding_fraction": gguf.get("rope.dimension_count", head_width) / head_width,
        "head_width": head_width,
        "n_positions": gguf.get("context_length"),
        "rope_scaling": _scaling(file, gguf),
        "rotary_divisors": _divisors(file),
        "use_attention_bias": "blk.0.attn_output.bias" in file,
        "use_ffn_bias": "blk.0.ffn_up.bias" in file,
        **_window(gguf, period),
    }


def _refuse(gguf: HFConfig) -> None:
    # Of all these the first is what a file without the key means.
    gguf.refuse("attention.causal", True)
    gguf.refuse("expert_count", 0)
    for key in ("attention.scale", "attention.clamp_kqv", "logit_scale", "embedding_scale"):
        gguf.refuse(key, None)
    for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        if isinstance(gguf.get(key), list):
            raise ValueError(f"{gguf.label}: {key} by layer is not supported")


def _window(gguf: HFConfig, period: int) -> dict[str, Any]:
    window, n_layers = gguf.get("attention.sliding_window", 0), gguf["block_count"]
    if window == 0:
        return {}
    pattern = gguf.get("attention.sliding_window_pattern", period)
    if isinstance(pattern, int):
        pattern = [pattern == 0 or (i + 1) % pattern != 0 for i in range(n_layers)]
    local = tuple(bool(flag) for flag in pattern)
    if not any(local):
        return {}
    return {"window": window, "local_layers": None if all(local) else local}


def _scaling(file: GGUFFile, gguf: HFConfig) -> dict[str, Any]:
    if "rope_factors_short.weight" in file:
        return _longrope(file, gguf)
    gguf.refuse("rope.scaling.attn_factor", 1.0)
    # A factor without a type is a linear one.
    factor, trained = (
        gguf.get("rope.scaling.factor", gguf.get("rope.scale_linear")),
        gguf.get("rope.scaling.original_context_length"),
    )
    kind = gguf.get("rope.scaling.type", "linear" if factor else "none")
    if kind == "none":
        return {}
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and factor and trained:
        gguf.refuse("rope.scaling.yarn_ext_factor", 1.0)
        gguf.refuse("rope.scaling.yarn_attn_factor", 1.0)
        gguf.refuse("rope.scaling.yarn_log_multiplier", 0.0)
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": trained,
            "beta_fast": gguf.get("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": gguf.get("rope.scaling.yarn_beta_slow", 1.0),
        }
    raise ValueError(f"{gguf.label}: rotary scaling of type `{kind}` is not supported")


def _longrope(file: GGUFFile, gguf: HFConfig) -> dict[str, Any]:
    trained = gguf["rope.scaling.original_context_length"]
    return {
        "rope_type": "longrope",
        "factor": gguf["context_length"] / trained,
        "original_max_position_embeddings": trained,
        "attention_factor": gguf.get("rope.scaling.attn_factor", 1.0),
        **{
            f"{which}_factor": file[f"rope_factors_{which}.weight"].numpy().tolist()
            for which in ("short", "long")
        },
    }


def _divisors(file: GGUFFile) -> tuple[float, ...] | None:
    # Llama 3's scaling, which the file states by its result.
    if "rope_freqs.weight" not in file:
        return None
    return tuple(float(value) for value in file["rope_freqs.weight"].numpy())
