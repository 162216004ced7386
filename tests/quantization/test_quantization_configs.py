"""Quantization's configurations: the documented fields, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest

from curated_transformers import quantization
from curated_transformers.quantization import Quantizable, bnb, prepare_module_for_quantization
from curated_transformers.quantization.bnb.config import BitsAndBytesConfig, Dtype4Bit

CONFIGS = [
    BitsAndBytesConfig.for_8bit(),
    BitsAndBytesConfig.for_8bit(0.0, finetunable=True),
    BitsAndBytesConfig.for_4bit(),
    BitsAndBytesConfig.for_4bit(Dtype4Bit.NF4, "float16", double_quantization=False),
]


@pytest.mark.parametrize("package", [quantization, bnb])
def test_packages_give_the_configurations(package):
    assert package.BitsAndBytesConfig is BitsAndBytesConfig
    assert package.Dtype4Bit is Dtype4Bit


def test_eight_bits_have_the_documented_defaults():
    inner = BitsAndBytesConfig.for_8bit().inner
    assert dataclasses.asdict(inner) == {"outlier_threshold": 6.0, "finetunable": False}


def test_four_bits_have_the_documented_defaults():
    inner = BitsAndBytesConfig.for_4bit().inner
    assert dataclasses.asdict(inner) == {
        "quantization_dtype": Dtype4Bit.FP4,
        "compute_dtype": "bfloat16",
        "double_quantization": True,
        "int8_activations": False,
    }


def test_settings_are_kept_under_their_names():
    inner = BitsAndBytesConfig.for_8bit(outlier_threshold=3.5, finetunable=True).inner
    assert (inner.outlier_threshold, inner.finetunable) == (3.5, True)
    inner = BitsAndBytesConfig.for_4bit(
        quantization_dtype=Dtype4Bit.NF4, compute_dtype="float32", double_quantization=False
    ).inner
    assert (inner.quantization_dtype, inner.compute_dtype) == (Dtype4Bit.NF4, "float32")
    assert inner.double_quantization is False
    assert BitsAndBytesConfig.for_4bit(int8_activations=True).inner.int8_activations is True
    with pytest.raises(TypeError):
        BitsAndBytesConfig.for_4bit(Dtype4Bit.NF4, "float16", False, True)


def test_the_four_bit_types_are_strings():
    assert [(kind.name, kind.value) for kind in Dtype4Bit] == [("FP4", "fp4"), ("NF4", "nf4")]
    assert Dtype4Bit.NF4 == "nf4"
    assert BitsAndBytesConfig.for_4bit("nf4").inner.quantization_dtype is Dtype4Bit.NF4
    with pytest.raises(ValueError, match="'int4' is not a valid Dtype4Bit"):
        BitsAndBytesConfig.for_4bit("int4")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("float32", "float32"),
        ("torch.bfloat16", "bfloat16"),
        ("half", "float16"),
        (np.float16, "float16"),
        (np.dtype("float32"), "float32"),
    ],
)
def test_compute_types_have_many_names(given, name):
    assert BitsAndBytesConfig.for_4bit(compute_dtype=given).inner.compute_dtype == name


@pytest.mark.parametrize("given", ["float64", "int8", "nonsense", np.float64, "torch.int64"])
def test_other_compute_types_are_refused(given):
    with pytest.raises(ValueError, match="Unsupported compute dtype `") as error:
        BitsAndBytesConfig.for_4bit(compute_dtype=given)
    text = str(error.value)
    assert f"`{given}` for quantization, must be one of: bfloat16, float16, float32" in text


@pytest.mark.parametrize("threshold", [-1.0, math.nan])
def test_a_threshold_is_a_magnitude(threshold):
    with pytest.raises(ValueError, match="Outlier threshold must be >= 0, was: "):
        BitsAndBytesConfig.for_8bit(threshold)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("duplicate", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
def test_copies_are_equal(config, duplicate):
    again = duplicate(config)
    assert again == config
    assert hash(again) == hash(config)
    assert [other for other in CONFIGS if other == again] == [config]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_configurations_do_not_change(config):
    field = dataclasses.fields(config.inner)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config.inner, field, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.inner = None


def test_a_configuration_shows_its_settings():
    text = repr(CONFIGS[3])
    assert text.startswith("BitsAndBytesConfig(inner=")
    for part in ("'nf4'", "compute_dtype='float16'", "double_quantization=False"):
        assert part in text
    assert "outlier_threshold=6.0" in repr(CONFIGS[0])


def test_other_configurations_are_refused():
    with pytest.raises(TypeError, match="must be a BitsAndBytesConfig, is: str"):
        prepare_module_for_quantization(object(), "8bit")


def test_a_quantizable_model_says_what_to_leave_alone():
    class Model(Quantizable):
        @classmethod
        def modules_to_not_quantize(cls):
            return {"output_embeddings"}

    assert Model.modules_to_not_quantize() == {"output_embeddings"}
    with pytest.raises(NotImplementedError):
        Quantizable.modules_to_not_quantize()
