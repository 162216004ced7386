"""Names of element types: ours, NumPy's and torch's, the last without torch."""

from __future__ import annotations

import numpy as np
import pytest

from curated_transformers.dtype import dtype_name


class TorchDType:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"torch.{self.name}"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("q4_1", "q4_1"),
        ("q6_k", "q6_k"),
        ("half", "float16"),
        ("torch.float16", "float16"),
        ("torch.float", "float32"),
        (np.float16, "float16"),
        (np.dtype("int64"), "int64"),
        (bool, "bool"),
        (TorchDType("bfloat16"), "bfloat16"),
    ],
)
def test_types_by_many_names(dtype, name):
    assert dtype_name(dtype) == name


@pytest.mark.parametrize("dtype", ["float64", "double", "nothing", np.float64, TorchDType("int16")])
def test_types_that_tensors_cannot_have(dtype):
    with pytest.raises(ValueError, match="Invalid torch dtype"):
        dtype_name(dtype)


@pytest.mark.parametrize("dtype", [3, object(), [1], None])
def test_values_that_are_no_types(dtype):
    with pytest.raises(TypeError, match="dtype must be a name"):
        dtype_name(dtype)
