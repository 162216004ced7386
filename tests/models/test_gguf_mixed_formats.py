"""Models whose GGUF file mixes block formats, as most of those that are published do, against the
same values in f32 and against transformers live."""

from __future__ import annotations

import numpy as np
import pytest
from models.comparison import assert_close, results
from models.gguf_files import F16, F32, gguf_name, write_gguf
from models.variants import piece_ids, random_weights
from models.variants.llama import llama
from oracles.gguf_blocks import FORMATS, decode, quantize

from curated_transformers.models import AutoCausalLM

VARIANT = llama("k-blocks", hidden_size=256, intermediate_size=512)
NUMBERS = {"F32": F32, "F16": F16} | {name: number for name, (number, _, _) in FORMATS.items()}
#: Format of pieces and values, of what leads out of the feed-forward layers, and of everything
#: else. The first three are what published files of these names mix.
MIXES = {
    "Q4_K_M": ("Q6_K", "Q6_K", "Q4_K"),
    "Q5_K_M": ("Q6_K", "Q6_K", "Q5_K"),
    "narrow Q4_K_M": ("Q8_0", "Q6_K", "Q5_0"),
    "values as they were": ("F32", "Q5_K", "Q4_K"),
    "values in 16 bits": ("F16", "Q5_1", "Q5_1"),
    "Q6_K": ("Q6_K", "Q6_K", "Q6_K"),
}


def mixed_kind(mix):
    pieces_and_values, down, others = (NUMBERS[name] for name in MIXES[mix])

    def kind(name):
        if "attn_v" in name or "token_embd" in name:
            return pieces_and_values
        return down if "ffn_down" in name else others

    return kind


def to_blocks(array, kind):
    (name,) = (name for name in NUMBERS if NUMBERS[name] == kind)
    return array.astype("<f2") if name == "F16" else quantize(name, array)


def rounded(array, kind):
    """The values of these blocks."""
    (name,) = (name for name in NUMBERS if NUMBERS[name] == kind)
    if name in FORMATS:
        return decode(name, quantize(name, array)).reshape(array.shape)
    return array.astype("<f2" if name == "F16" else "<f4").astype(np.float32)


def weights():
    """By transformers' names."""
    config = VARIANT.config
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    narrow = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes = {
        "model.embed_tokens": (config["vocab_size"], hidden),
        "model.norm": (hidden,),
        "lm_head": (config["vocab_size"], hidden),
    }
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return {
        f"{name}.weight": random_weights(f"{name}.weight", shape) for name, shape in shapes.items()
    }


@pytest.mark.parametrize("mix", MIXES)
def test_blocks_are_computed_as_their_values(mix, tmp_path):
    kind = mixed_kind(mix)
    write_gguf(tmp_path / "blocks.gguf", VARIANT, weights(), kind, to_blocks)
    # Blocks lie within rows, which may be put into another order before or after rounding.
    values = {
        name: rounded(array, kind(gguf_name(VARIANT, name))) if array.ndim == 2 else array
        for name, array in weights().items()
    }
    write_gguf(tmp_path / "values.gguf", VARIANT, values)
    blocks, plain = (AutoCausalLM.from_path(tmp_path / f"{n}.gguf") for n in ("blocks", "values"))
    for n_pieces in (1, 7, 40):  # few rows are decoded in registers, many in bands
        ids = piece_ids(1, 2, n_pieces)
        assert_close(results(blocks(ids)), results(plain(ids)))


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
def test_a_file_is_the_same_model_as_in_transformers(mix, tmp_path):
    pytest.importorskip("gguf")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers needs it for these files")
    from oracles.random_models import run

    write_gguf(tmp_path / "model.gguf", VARIANT, weights(), mixed_kind(mix), to_blocks)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype="float32"
    ).eval()
    ids = piece_ids(1, 2, 100)
    assert_close(results(AutoCausalLM.from_path(tmp_path / "model.gguf")(ids)), run(reference, ids))
