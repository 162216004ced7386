"""The small documented modules: semver, util, util.serde."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import small_models

from curated_transformers import checkpoint
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.semver import Default, FutureMandatory
from curated_transformers.util import use_nvtx_ranges_for_forward_pass
from curated_transformers.util.serde.checkpoint import ModelCheckpointType
from curated_transformers.util.serde.load import load_checkpoint


def test_the_mark_of_a_default_has_no_instances():
    with pytest.raises(TypeError, match="no instances"):
        Default()


def test_a_future_mandatory_argument_takes_its_type_or_the_mark():
    assert set(typing.get_args(FutureMandatory[int])) == {int, type[Default]}


def test_profiler_ranges_change_no_result(tmp_path):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path))
    expected = model([[1, 2, 3]]).logits.numpy()
    with use_nvtx_ranges_for_forward_pass(model):
        np.testing.assert_array_equal(model([[1, 2, 3]]).logits.numpy(), expected)
    with pytest.raises(ZeroDivisionError), use_nvtx_ranges_for_forward_pass(model):
        raise ZeroDivisionError


def test_serialization_has_its_documented_paths():
    assert ModelCheckpointType is checkpoint.ModelCheckpointType
    assert load_checkpoint is checkpoint.load_checkpoint
