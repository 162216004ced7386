"""Blocks of every format that a GGUF file may hold, against what the `gguf` package decodes
(oracles/gguf_blocks.py). Equality is exact, as each value is rounded once."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoint_writers import gguf
from oracles.gguf_blocks import FORMATS, GOLDEN, decode, gguf_values, quantize, random_blocks

from curated_transformers.checkpoint import GGUFFile

STORED = np.load(GOLDEN)


@pytest.fixture
def load(tmp_path):
    def load_tensor(name, raw, rows=1):
        number, n_values, n_bytes = FORMATS[name]
        columns = raw.size // n_bytes * n_values // rows
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(gguf(tensors=[("x", [columns, rows], number, 0)], data=raw.tobytes()))
        return GGUFFile(path)["x"]

    return load_tensor


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_decode_as_the_gguf_package_does(name, load):
    blocks, values = STORED[f"{name}_blocks"], STORED[f"{name}_values"]
    tensor = load(name, blocks)
    assert (tensor.dtype, tensor.shape) == (name.lower(), (1, 1024))
    np.testing.assert_array_equal(tensor.to("float32").numpy()[0], values)
    np.testing.assert_array_equal(decode(name, blocks), values)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_views_and_parts_of_rows_are_refused(name, load):
    tensor = load(name, STORED[f"{name}_blocks"], rows=4)
    expected = STORED[f"{name}_values"].reshape(4, 256)
    np.testing.assert_array_equal(tensor[1:3].to("float32").numpy(), expected[1:3])
    np.testing.assert_array_equal(tensor[2].to("float32").numpy(), expected[2])
    with pytest.raises(ValueError, match="inside its rows"):
        tensor[:, :128]
    # Numbers of f16 keep what they can of an f32.
    with np.errstate(over="ignore"):
        half = expected.astype(np.float16)
    np.testing.assert_array_equal(tensor.to("float16").numpy(), half)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_that_are_no_whole_blocks_are_refused(name, tmp_path):
    number, n_values, n_bytes = FORMATS[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf(tensors=[("x", [n_values // 2, 2], number, 0)], data=bytes(n_bytes)))
    with pytest.raises(ValueError, match=f"not whole blocks of {n_values} values"):
        GGUFFile(path)


@pytest.mark.parametrize("name", FORMATS)
def test_the_test_helpers_rounding_is_within_its_step(name):
    """What other tests make their files with: they would pass with any weights."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (3, 512)).astype(np.float32)
    # Codes of b bits for a range of 2; a code of 6 bits less for its scale and minimum.
    n_bits = int(name[1])
    step = 2 / (2**n_bits - 2) + (2 * 1.5 / 63 if name.endswith("K") else 0)
    error = np.abs(decode(name, quantize(name, values)) - values.ravel()).max()
    assert step / 16 < error < step


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_blocks_decode_as_the_gguf_package_does(name, seed, load):
    pytest.importorskip("gguf")
    blocks = random_blocks(name, 4096, seed)
    np.testing.assert_array_equal(
        load(name, blocks).to("float32").numpy()[0], gguf_values(name, blocks)
    )
