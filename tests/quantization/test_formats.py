"""What matrices become, bit for bit: against stored results of bitsandbytes, and the formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.bitsandbytes_formats import FP4, quantize_4bit, quantize_int8

from curated_transformers import _core

GOLDEN = dict(np.load(Path(__file__).parent.parent / "golden" / "quant.npz"))
FORMATS = ("nf4", "fp4")
DYNAMIC = GOLDEN["code_dynamic8"]


def floats(name):
    return GOLDEN[name].view(np.float16).astype(np.float32)


def bits(array):
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def nibbles(packed):
    return np.stack([packed >> 4, packed & 15], axis=1).ravel()


def scales(tensor):
    parts = tensor.scales
    return {key: np.asarray(parts[key]) for key in parts if key.endswith(("absmax", "map"))}


def assert_same_4bit(ours, expected):
    """Every part has the bits of the statement's."""
    np.testing.assert_array_equal(np.asarray(ours.codes), expected.packed)
    found = scales(ours)
    if expected.nested is None:
        np.testing.assert_array_equal(bits(found["absmax"]), bits(expected.absmax))
    else:
        np.testing.assert_array_equal(found["absmax"], expected.nested["absmax"])
        np.testing.assert_array_equal(
            bits(found["nested_absmax"]), bits(expected.nested["nested_absmax"])
        )
        assert ours.scales["nested_offset"] == expected.nested["offset"]
    np.testing.assert_array_equal(ours.numpy(), expected.values)


def test_nf4_has_the_bits_of_bitsandbytes():
    ours = _core.quantize(floats("w4_input_f16bits"), "nf4")
    np.testing.assert_array_equal(np.asarray(ours.codes), GOLDEN["nf4_packed"])
    np.testing.assert_array_equal(bits(scales(ours)["absmax"]), bits(GOLDEN["nf4_absmax"]))
    halves = ours.to(dtype="float16").numpy()
    np.testing.assert_array_equal(bits(halves), GOLDEN["nf4_dequant_f16bits"])
    brains = ours.to(dtype="bfloat16").numpy()  # as float32
    np.testing.assert_array_equal(bits(brains) >> 16, GOLDEN["nf4_dequant_bf16bits"])


def test_fp4_differs_from_bitsandbytes_on_a_cpu_where_its_rules_differ_alone():
    """The GPU code, whose rule ours is, gives zeros the sign of the value, and its middles between
    two codes are up to 4e-7 away."""
    matrix = floats("w4_input_f16bits")
    ours = _core.quantize(matrix, "fp4")
    absmax = scales(ours)["absmax"]
    np.testing.assert_array_equal(bits(absmax), bits(GOLDEN["fp4_absmax"]))
    mine, theirs = nibbles(np.asarray(ours.codes)), nibbles(GOLDEN["fp4_packed"])
    zeros = np.isin(mine, (0, 8)) & np.isin(theirs, (0, 8))
    assert (mine != theirs)[zeros].any(), "else nothing of the rule is seen"
    differ = np.flatnonzero((mine != theirs) & ~zeros)
    assert 0 < differ.size < 10
    middles = (FP4[mine[differ]] + FP4[theirs[differ]]) / 2
    np.testing.assert_allclose(matrix.ravel()[differ] / absmax[differ // 64], middles, rtol=4e-6)
    same = np.delete(ours.to(dtype="float16").numpy().ravel(), differ)
    stored = GOLDEN["fp4_dequant_f16bits"].view(np.float16).ravel()
    np.testing.assert_array_equal(same, np.delete(stored, differ))


def test_a_value_in_the_middle_of_two_gets_the_smaller_magnitude():
    row = np.zeros((1, 64), np.float32)
    row[0, :4] = 1, 0.0859375, -0.0859375, np.nextafter(np.float16(0.0859375), np.float16(1))
    ours = _core.quantize(row, "fp4").numpy()[0, :4]
    np.testing.assert_array_equal(ours, FP4[[3, 1, 9, 6]])


@pytest.mark.parametrize("format", FORMATS)
def test_double_quantization_has_the_nearest_codes(format):
    matrix = floats("w4_input_f16bits")
    ours = _core.quantize(matrix, format, nested=True)
    assert_same_4bit(ours, quantize_4bit(matrix, format, DYNAMIC))
    found = scales(ours)
    np.testing.assert_array_equal(bits(found["nested_map"]), bits(DYNAMIC))
    # bitsandbytes on a CPU looks codes up in bins: a few are neighbours of the nearest.
    theirs = GOLDEN[f"{format}_nested_absmax_u8"].astype(int)
    away = np.abs(found["absmax"].astype(int) - theirs)
    assert (away > 0).mean() < 0.05
    assert away.max() <= 3
    np.testing.assert_allclose(
        ours.scales["nested_offset"], GOLDEN[f"{format}_nested_offset"], rtol=2e-7
    )


@pytest.mark.parametrize("format", FORMATS)
def test_restored_scales_have_the_bits_of_bitsandbytes(format):
    restored = GOLDEN[f"{format}_nested_absmax_restored"]
    parts = {
        "absmax": GOLDEN[f"{format}_nested_absmax_u8"],
        "nested_absmax": GOLDEN[f"{format}_nested_absmax2"],
        "nested_map": DYNAMIC,
        "nested_offset": float(GOLDEN[f"{format}_nested_offset"]),
    }
    codes = np.full(64 * 320 // 2, 0xFF if format == "nf4" else 0x33, np.uint8)  # ones
    tensor = _core.scaled_tensor(codes, format, [64, 320], block=64, **parts)
    np.testing.assert_array_equal(bits(tensor.numpy().ravel()[::64]), bits(restored))


def test_int8_has_the_bits_of_bitsandbytes():
    ours = _core.quantize(floats("i8_w_f16bits"), "llm_int8")
    np.testing.assert_array_equal(np.asarray(ours.codes), GOLDEN["i8_CB"])
    np.testing.assert_array_equal(bits(scales(ours)["absmax"]), bits(GOLDEN["i8_SCB"]))
    expected = GOLDEN["i8_CB"] * GOLDEN["i8_SCB"][:, None].astype(np.float64) / 127
    np.testing.assert_allclose(ours.numpy(), expected, rtol=2e-7)
    assert not ours.numpy()[3].any()  # a row of zeros


@given(
    st.integers(1, 40),
    st.integers(1, 150),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "tiny", "huge", "sparse", "constant"]),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_any_matrix_becomes_what_the_formulas_say(rows, half_width, seed, kind, dtype):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, 2 * half_width)).astype(np.float32)
    if kind == "tiny":  # float16's subnormals, and below
        matrix *= np.float32(2e-7)
    elif kind == "huge":  # beyond float16
        matrix *= np.float32(3e5)
    elif kind == "sparse":
        matrix *= rng.random(matrix.shape) < 0.02
    elif kind == "constant":
        matrix[:] = matrix[0, 0]
    tensor = _core.Tensor(matrix).to(dtype=dtype)
    matrix = tensor.to(dtype="float32").numpy()
    for format in FORMATS:
        assert_same_4bit(_core.quantize(tensor, format), quantize_4bit(matrix, format))
        nested = _core.quantize(tensor, format, nested=True)
        assert_same_4bit(nested, quantize_4bit(matrix, format, DYNAMIC))
    codes, absmax = quantize_int8(matrix)
    ours = _core.quantize(tensor, "llm_int8")
    np.testing.assert_array_equal(np.asarray(ours.codes), codes)
    np.testing.assert_array_equal(bits(scales(ours)["absmax"]), bits(absmax))


@pytest.mark.parametrize("format", [*FORMATS, "llm_int8"])
def test_a_matrix_with_values_that_are_no_numbers_is_refused(format):
    matrix = np.ones((2, 64), np.float32)
    matrix[1, 5] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        _core.quantize(matrix, format)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_odd_length_do_not_become_four_bits(format):
    with pytest.raises(ValueError, match="rows of 63 values cannot be quantized"):
        _core.quantize(np.ones((2, 63), np.float32), format)
