"""The variants of each architecture that are compared with transformers, as data.

A variant is the config.json that a checkpoint of it would come with. The models are small, their
widths are no multiples of a vector where that may matter, and every option that changes a result
has a variant. `oracles/random_models.py` builds them, `test_parity.py` compares all of them live
and `test_golden.py` those marked golden with stored values.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Around the borders of KV pages (64), of attention tiles, and far from them.
LENGTHS = (1, 2, 63, 64, 65, 130, 300)
RAGGED = (7, 65, 1, 20)
N_POSITIONS = 320
N_PIECES = 101


@dataclass(frozen=True)
class Variant:
    """``names`` says how parameters are called: as the plain model saves them, with the prefix of a
    model with a head (``prefixed``), as old checkpoints had them (``gamma``), or as they are called
    inside transformers, which saves them under an older name (``inside``)."""

    name: str
    config: dict[str, Any]
    golden: bool = False
    names: str = "plain"

    @property
    def architecture(self) -> str:
        return str(self.config["model_type"])

    @property
    def is_decoder(self) -> bool:
        return self.architecture != "bert"

    def __str__(self) -> str:
        return f"{self.architecture}-{self.name}"


def llama(name: str, golden: bool = False, **options: Any) -> Variant:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, golden)


def gpt_neox(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "gpt_neox",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "vocab_size": N_PIECES,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-5,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    config |= options
    if "rope_parameters" in options:  # the newer style replaces these two
        del config["rotary_pct"], config["rotary_emb_base"]
    return Variant(name, config, golden, names)


def bert(name: str, golden: bool = False, names: str = "plain", **options: Any) -> Variant:
    config = {
        "model_type": "bert",
        "hidden_size": 64,
        "intermediate_size": 88,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "vocab_size": N_PIECES,
        "type_vocab_size": 2,
        "max_position_embeddings": N_POSITIONS,
        "layer_norm_eps": 1e-12,
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "torch_dtype": "float32",
    }
    return Variant(name, config | options, golden, names)


# With heads of 16 and base 500000 the wavelengths are 6, 32, 167, 861 ...: with these bounds there
# are angles on each side of both.
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
WITHOUT_LENGTH = {
    key: value for key, value in LLAMA3_SCALING.items() if key != "original_max_position_embeddings"
}

VARIANTS = [
    llama("gqa", golden=True),
    llama("mha", num_key_value_heads=4),
    llama("mqa", num_key_value_heads=1),
    llama("without-kv-heads", num_key_value_heads=None),
    llama("odd-heads", num_attention_heads=6, num_key_value_heads=3, hidden_size=60, head_dim=10),
    llama("wider-heads", golden=True, head_dim=24),
    llama("narrower-heads", head_dim=6),
    llama("heads-of-128", head_dim=128, num_attention_heads=2, num_key_value_heads=1),
    llama("one-narrow-layer", hidden_size=36, num_attention_heads=2, num_hidden_layers=1),
    llama("tied", golden=True, tie_word_embeddings=True),
    llama("attention-bias", attention_bias=True),
    llama("mlp-bias", mlp_bias=True),
    llama("all-biases", golden=True, attention_bias=True, mlp_bias=True, rms_norm_eps=0.05),
    llama("large-eps", rms_norm_eps=0.05),
    llama("theta", rope_theta=500000.0),
    llama("theta-new", rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    llama("linear", rope_scaling={"type": "linear", "factor": 4.0}),
    llama(
        "linear-new",
        golden=True,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0},
    ),
    llama("llama3", rope_theta=500000.0, rope_scaling=LLAMA3_SCALING),
    llama("llama3-new", golden=True, rope_parameters={**LLAMA3_SCALING, "rope_theta": 500000.0}),
    llama("llama3-without-length", golden=True, rope_theta=500000.0, rope_scaling=WITHOUT_LENGTH),
    llama(
        "both-styles",
        golden=True,
        rope_scaling={"rope_type": "linear", "factor": 4.0},
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
    llama("gelu", hidden_act="gelu"),
    llama("gelu-new", hidden_act="gelu_new"),
    llama("gelu-fast", hidden_act="gelu_fast"),
    llama("relu", hidden_act="relu"),
    gpt_neox("parallel", golden=True),
    gpt_neox("sequential", golden=True, use_parallel_residual=False),
    gpt_neox("half-rotary", golden=True, rotary_pct=0.5),
    gpt_neox("full-rotary", rotary_pct=1.0, use_parallel_residual=False),
    gpt_neox("truncated-rotary", hidden_size=40, rotary_pct=0.25),  # 2.5 of 10 features
    gpt_neox("one-wide-head", num_attention_heads=1, num_hidden_layers=2),
    gpt_neox("base", rotary_emb_base=500, rotary_pct=1.0),
    gpt_neox(
        "base-new",
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
    ),
    gpt_neox("linear", rope_scaling={"type": "linear", "factor": 4.0}, rotary_pct=0.5),
    gpt_neox(
        "linear-new",
        golden=True,
        rope_parameters={
            "rope_type": "linear",
            "factor": 4.0,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    ),
    gpt_neox("gelu-new", hidden_act="gelu_new"),
    gpt_neox("gelu-fast", hidden_act="gelu_fast"),
    gpt_neox("relu", hidden_act="relu", use_parallel_residual=False),
    gpt_neox("silu", hidden_act="silu"),
    gpt_neox("without-attention-bias", golden=True, attention_bias=False, layer_norm_eps=0.05),
    gpt_neox("tied", tie_word_embeddings=True),
    gpt_neox("lm-head", names="inside"),
    gpt_neox("large-eps", layer_norm_eps=0.05),
    bert("base", golden=True),
    bert("gelu-new", golden=True, hidden_act="gelu_new"),
    bert("gelu-fast", hidden_act="gelu_fast"),
    bert("relu", hidden_act="relu"),
    bert("silu", hidden_act="silu"),
    bert("one-type", type_vocab_size=1),
    bert("three-types", type_vocab_size=3),
    bert("width-32", hidden_size=32, num_attention_heads=2, intermediate_size=52),
    bert(
        "width-40",
        golden=True,
        hidden_size=40,
        num_attention_heads=5,
        intermediate_size=50,
        layer_norm_eps=0.05,
    ),
    bert("width-60", hidden_size=60, num_attention_heads=6, num_hidden_layers=2),
    bert("one-wide-head", num_attention_heads=1),
    bert("large-eps", layer_norm_eps=0.05),
    bert("prefixed", golden=True, names="prefixed"),
    bert("gamma", golden=True, names="gamma"),
    bert("prefixed-gamma", names="prefixed-gamma"),
]
#: Variants of equal weights that transformers must take for the same model.
SAME_MEANING = {
    "llama": [
        {"mha", "without-kv-heads"},
        {"theta", "theta-new"},
        {"llama3", "llama3-new"},
        {"linear", "both-styles"},
        {"gelu-new", "gelu-fast"},
    ],
    "gpt_neox": [{"gelu-new", "gelu-fast"}],
    "bert": [{"gelu-new", "gelu-fast"}],
}
#: What is stored of the golden ones: a padded batch, and these places of a long sequence, on both
#: sides of 64 and 128 and at the ends.
GOLDEN_RAGGED = (5, 11, 1)
GOLDEN_LONG = 300
GOLDEN_PLACES = [0, 1, 62, 63, 64, 65, 127, 128, 129, 298, 299]
GOLDEN = [variant for variant in VARIANTS if variant.golden]


def random_weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of the parameter that a checkpoint stores as ``name``, the same wherever asked.

    Norms and biases are not their defaults. Queries and keys are scaled so that scores spread by
    some 2, and feed-forward inputs so that activations are used where they bend.
    """
    # RandomState's stream is frozen by NumPy's policy; that of newer generators is not.
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    lower = name.lower()
    if name.endswith(("bias", "beta")):
        values *= 0.3
    elif "norm" in lower:
        values = 1 + 0.3 * values
    elif "embed" not in lower or "embed_out" in lower:
        bends = ("query", "key", "q_proj", "k_proj", "gate", "up_proj", "intermediate", "h_to_4h")
        gain = 1.5 if any(part in lower for part in bends) else 1.0
        values *= gain / np.sqrt(shape[1])
    return values.astype(np.float32)


def stored_name(variant: Variant, name: str) -> str:
    """transformers' name of a parameter -> the one in the variant's checkpoint."""
    renames = []
    if variant.architecture == "gpt_neox" and variant.names != "inside":
        renames.append(("lm_head.weight", "embed_out.weight"))
    if "gamma" in variant.names:
        renames += [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
    for new, old in renames:
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def piece_ids(seed: int, *shape: int) -> np.ndarray:
    """Pieces without 0, which pads."""
    return np.random.RandomState(seed).randint(1, N_PIECES, shape).astype(np.int64)


def ragged_batch(left: bool, lengths: tuple[int, ...] = RAGGED) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``[batch, seq]``, the same sequences padded on either side, and their mask."""
    ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    for row, length in enumerate(lengths):
        columns = slice(-length, None) if left else slice(0, length)
        ids[row, columns] = piece_ids(100 + row, length)
        mask[row, columns] = True
    return ids, mask
