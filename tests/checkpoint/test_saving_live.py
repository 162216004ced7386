"""What `save` writes, loaded by transformers and by the safetensors package."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="`make oracle` installs torch and transformers")

import torch
from models.comparison import load
from models.variants import VARIANTS, piece_ids
from oracles.random_models import build, run
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM

pytestmark = pytest.mark.slow
IDS = piece_ids(3, 1, 80)
FIRST = {}
for variant in VARIANTS:
    FIRST.setdefault(variant.architecture, variant)


@pytest.mark.parametrize("size", ["5GB", "60KB"])
@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_transformers_computes_the_same_with_what_we_save(variant, size, tmp_path):
    reference = build(variant)
    reference.save_pretrained(tmp_path / "theirs")
    load(variant, tmp_path / "theirs").save(tmp_path / "ours", max_shard_size=size)
    kind = AutoModelForCausalLM if variant.is_decoder else AutoModel
    again, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert not [name for name in report["missing_keys"] if "pooler" not in name]
    (hidden, logits), (expected, expected_logits) = run(again.eval(), IDS), run(reference, IDS)
    np.testing.assert_array_equal(hidden, expected)
    if logits is not None:
        np.testing.assert_array_equal(logits, expected_logits)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_the_safetensors_package_reads_the_weights(variant, dtype, tmp_path):
    reference = build(variant)
    reference.save_pretrained(tmp_path / "theirs")
    load(variant, tmp_path / "theirs", dtype=dtype).save(tmp_path / "ours")
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert ours
    for name, values in ours.items():
        assert values.dtype == getattr(torch, dtype)
        (same,) = [key for key in theirs if key == name or key.endswith("." + name)]
        assert torch.equal(values, theirs[same].to(values.dtype)), name
    with safe_open(tmp_path / "ours" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
