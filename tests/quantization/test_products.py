"""Products with quantized matrices against the formulas in float64.

The matrix is the head of a model: logits are its product with the last hidden state, which is seen.
What a hidden state looks like is chosen by the weights of the norm before it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors
from models.variants import piece_ids
from oracles.bitsandbytes_formats import CODEBOOKS, int8_product, quantize_4bit, quantize_int8

from curated_transformers.models import LlamaCausalLM
from curated_transformers.quantization.bnb import BitsAndBytesConfig

# Whole blocks of 64, none, and rows that begin inside a block.
WIDTHS = (64, 192, 24, 200)
LENGTHS = (1, 3, 30)  # one row, few, and so many that another kernel takes them
with np.load(Path(__file__).parent.parent / "golden" / "quant.npz") as stored:
    DYNAMIC = stored["code_dynamic8"]


class WithHead(LlamaCausalLM):
    """Quantized with its head."""

    @classmethod
    def modules_to_not_quantize(cls):
        return set()


def scaled_norm(kind, width):
    weight = np.random.default_rng(1).standard_normal(width).astype(np.float32)
    if kind == "one huge":
        weight[width // 3] = 3000
    elif kind == "beyond float16":
        weight[width // 3] = 3e6
    elif kind == "subnormal":  # in float16
        weight *= np.float32(3e-7)
    elif kind == "zeros":
        weight[:] = 0
    elif kind == "many outliers":
        weight *= 8
    return weight


KINDS = ("ordinary", "one huge", "beyond float16", "subnormal", "zeros", "many outliers")


def run(tmp_path, width, kind, config, length, dtype="float32"):
    """Inputs ``[length, width]``, the matrix, and our products."""
    folder = small_models.llama(tmp_path / "model", width=width, heads=4, layers=1)
    weights = dict(small_models.read_weights(folder))
    weights["model.norm.weight"] = scaled_norm(kind, width)
    head = weights["lm_head.weight"].copy()
    head[3] = 0
    head[5, :2] = 40, 1e-9
    weights["lm_head.weight"] = head
    write_safetensors(folder / "model.safetensors", weights)
    model = WithHead.from_path(folder, dtype=dtype, quantization_config=config)
    output = model(piece_ids(2, 1, length) % 50)
    x = np.asarray(output.last_hidden_layer_state)[0]
    assert x.shape == (length, width)
    return x, head, np.asarray(output.logits)[0]


def error(ours, expected):
    """Of each row, relative to its norm; rows of zeros must be zeros."""
    assert np.isfinite(ours).all()
    norms = np.linalg.norm(expected, axis=1)
    differences = np.linalg.norm(ours - expected, axis=1)
    assert not differences[norms == 0].any()
    return (differences[norms > 0] / norms[norms > 0]).max(initial=0)


@pytest.mark.parametrize("threshold", [0.0, 6.0])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_eight_bits(tmp_path, width, kind, length, threshold):
    config = BitsAndBytesConfig.for_8bit(threshold)
    x, head, ours = run(tmp_path, width, kind, config, length)
    assert error(ours, int8_product(x, *quantize_int8(head), threshold)) < 1e-6


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("format", CODEBOOKS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_four_bits(tmp_path, width, kind, length, format, nested):
    config = BitsAndBytesConfig.for_4bit(format, "float32", double_quantization=nested)
    x, head, ours = run(tmp_path, width, kind, config, length)
    values = quantize_4bit(head, format, DYNAMIC if nested else None).values
    assert error(ours, x.astype(np.float64) @ values.astype(np.float64).T) < 2e-6


@pytest.mark.parametrize("compute", ["float16", "bfloat16"])
@pytest.mark.parametrize("format", CODEBOOKS)
@pytest.mark.parametrize("length", LENGTHS)
def test_narrow_compute_types_are_no_worse_than_bitsandbytes(tmp_path, format, length, compute):
    """Whose own errors are 2.5e-4 in float16 and 2.3e-3 in bfloat16."""
    config = BitsAndBytesConfig.for_4bit(format, compute, double_quantization=False)
    x, head, ours = run(tmp_path, 192, "ordinary", config, length)
    values = quantize_4bit(head, format).values
    expected = x.astype(np.float64) @ values.astype(np.float64).T
    assert error(ours, expected) < {"float16": 5e-4, "bfloat16": 4e-3}[compute]


@pytest.mark.parametrize("format", CODEBOOKS)
def test_activations_in_bytes_are_a_little_less_exact(tmp_path, format):
    config = BitsAndBytesConfig.for_4bit(
        format, "float32", double_quantization=False, int8_activations=True
    )
    x, head, ours = run(tmp_path, 192, "ordinary", config, 1)
    values = quantize_4bit(head, format).values
    expected = x.astype(np.float64) @ values.astype(np.float64).T
    # One value of 40 is in row 5, whose error is that of a single byte.
    assert 1e-4 < error(np.delete(ours, 5, 1), np.delete(expected, 5, 1)) < 2e-2


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_a_row_has_the_same_bits_in_any_company(tmp_path, threshold):
    """Also where another row of the batch has outliers, by which bitsandbytes would change it."""
    folder = small_models.llama(tmp_path / "model", width=64)
    weights = dict(small_models.read_weights(folder))
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].copy()
    weights["model.embed_tokens.weight"][7, ::9] *= 60
    for name in weights:
        if name.endswith("layernorm.weight"):
            weights[name] = weights[name] * np.float32(3)
    write_safetensors(folder / "model.safetensors", weights)
    config = BitsAndBytesConfig.for_8bit(threshold)
    model = LlamaCausalLM.from_path(folder, quantization_config=config)
    batch = np.array([[3, 1, 4, 1], [7, 7, 9, 7], [2, 7, 1, 8]])
    together = model(batch).logits.numpy()
    for row, ids in enumerate(batch):
        np.testing.assert_array_equal(model(ids[None]).logits.numpy()[0], together[row])
