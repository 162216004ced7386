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
    ignored=r"^rope_freqs\.weight$",
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


def decoder_arguments(file: GGUFFile, architecture: str) -> dict[str, Any]:
    """Arguments of a Llama-like configuration. ``ValueError`` for scaling that is not supported."""
    gguf = gguf_config(file, architecture)
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
        "rope_scaling": _scaling(gguf),
        "rotary_divisors": _divisors(file),
    }


def _scaling(gguf: HFConfig) -> dict[str, Any]:
    kind = gguf.get("rope.scaling.type", "none")
    if kind == "none":
        return {}
    factor, trained = (
        gguf.get("rope.scaling.factor"),
        gguf.get("rope.scaling.original_context_length"),
    )
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and factor and trained:
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
    raise ValueError(f"{gguf.label}: rotary scaling of type `{kind}` is not supported")


def _divisors(file: GGUFFile) -> tuple[float, ...] | None:
    # Llama 3's scaling, which the file states by its result.
    if "rope_freqs.weight" not in file:
        return None
    return tuple(float(value) for value in file["rope_freqs.weight"].numpy())
