"""MPT: what transformers computes of it. Other options stand in test_mpt.py."""

from __future__ import annotations

from typing import Any

from models.variants.base import N_PIECES, N_POSITIONS, Variant


def mpt(
    name: str, golden: bool = False, attn_config: dict[str, Any] | None = None, **options: Any
) -> Variant:
    config: dict[str, Any] = {
        "model_type": "mpt",
        "d_model": 64,
        "n_layers": 3,
        "n_heads": 4,
        "expansion_ratio": 4,
        "max_seq_len": N_POSITIONS,
        "vocab_size": N_PIECES,
        "no_bias": True,
        "torch_dtype": "float32",
    }
    if attn_config is not None:
        config["attn_config"] = attn_config
    return Variant(name, config | options, "decoder", golden)


VARIANTS = [
    mpt("base", golden=True),
    mpt("with-attn-config", attn_config={"alibi": True, "clip_qkv": None, "softmax_scale": None}),
    mpt("bias-max", golden=True, attn_config={"alibi": True, "alibi_bias_max": 16}),
    mpt("clip", attn_config={"clip_qkv": 0.7}),
    mpt("softmax-scale", attn_config={"softmax_scale": 0.1}),
    mpt(
        "clip-scale-and-bias-max",
        golden=True,
        attn_config={"clip_qkv": 1.5, "softmax_scale": 0.4, "alibi_bias_max": 4},
    ),
    mpt("large-eps", layer_norm_epsilon=0.05),
    mpt("three-heads", d_model=60, n_heads=3),
    mpt("twelve-heads", d_model=48, n_heads=12),
    mpt("one-wide-head", n_heads=1, n_layers=2),
    mpt("untied", tie_word_embeddings=False),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = [{"base", "with-attn-config"}]
