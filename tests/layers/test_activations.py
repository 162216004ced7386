"""Activation functions against their formulas in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers.layers import Activation, GELUFast, GELUNew

X = np.array([-1e30, -50, -3.7, -1, -1e-3, -0.0, 0, 1e-3, 0.5, 1, 2, 3.7, 50, 1e30])


def tanh_form(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS = {
    "relu": lambda x: max(0.0, x),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "gelu_fast": tanh_form,
    "gelu_new": tanh_form,
    "silu": lambda x: x / (1 + math.exp(-x)) if x > -700 else 0.0,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_function_is_its_formula(name):
    """1 + erf and 1 + tanh lose digits where they cancel: an error of a rounding of 1 (6e-8), times
    |x| / 2, which is below 4 where the result is not yet 0."""
    function = Activation(name).module()
    expected = [FORMULAS[name](float(np.float32(x))) for x in X]
    np.testing.assert_allclose(function(X), expected, rtol=1e-6, atol=4 * 6e-8)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(
    "given",
    [
        [[1, -2], [3, 0]],
        np.array([[1, -2], [3, 0]], dtype=np.float16),
        Tensor([[1.0, -2.0], [3.0, 0.0]], dtype="bfloat16"),
    ],
)
def test_any_kind_of_array_gives_a_float32_array_of_its_shape(name, given):
    result = Activation(name).module()(given)
    assert isinstance(result, np.ndarray)
    assert (result.dtype, result.shape) == (np.float32, (2, 2))
    assert result[1, 1] == 0
    assert result[1, 0] > 2.8


def test_a_number_gives_an_array_without_dimensions():
    result = Activation.ReLU.module()(2.0)
    assert isinstance(result, np.ndarray)
    assert result.shape == ()


def test_the_classes_have_their_documented_names():
    assert Activation.GELUFast.module is GELUFast
    assert Activation.GELUNew.module is GELUNew
    assert {a.value: a.module.__name__ for a in Activation} == {
        "relu": "ReLU",
        "gelu": "GELU",
        "gelu_fast": "GELUFast",
        "gelu_new": "GELUNew",
        "silu": "SiLU",
    }


@pytest.mark.parametrize("name", ["swish", "gelu_python", "quick_gelu", "GELU", None])
def test_other_names_are_refused(name):
    message = (
        f"Invalid activation function `{name}`. "
        "Supported functions: gelu, gelu_fast, gelu_new, relu, silu"
    )
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Activation(name)
