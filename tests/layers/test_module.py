"""What `layers` has and what it says that it has not; the switch of fused attention."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_models

from curated_transformers import layers
from curated_transformers.layers import enable_torch_sdp
from curated_transformers.layers.attention import _TORCH_SDP
from curated_transformers.models.llama import LlamaCausalLM

BUILDING_BLOCKS = [
    "AttentionLinearBiases",
    "AttentionScorer",
    "DecoderLayer",
    "EmbeddingDropouts",
    "EmbeddingLayerNorms",
    "EncoderLayer",
    "PointwiseFeedForward",
    "QueryKeyRotaryEmbeddings",
    "RMSNorm",
    "RotaryEmbeddings",
    "ScaledDotProductAttention",
    "SelfAttention",
    "SinusoidalPositionalEmbedding",
    "TransformerDropouts",
    "TransformerEmbeddings",
    "TransformerLayerNorms",
]
EXPORTS = [
    "Activation",
    "AttentionHeads",
    "AttentionMask",
    "CacheProtocol",
    "GELUFast",
    "GELUNew",
    "KeyValueCache",
    "QkvMode",
    "QkvSplit",
    "enable_torch_sdp",
]
IN_ATTENTION = [
    "AttentionHeads",
    "AttentionMask",
    "QkvMode",
    "QkvSplit",
    "QkvSplitGroupedByHead",
    "QkvSplitGroupedByKVHeads",
    "_TORCH_SDP",
    "combine_heads",
    "create_causal_mask",
    "enable_torch_sdp",
    "split_heads",
]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("layers", EXPORTS),
        ("layers.activations", ["Activation"]),
        ("layers.attention", IN_ATTENTION),
        ("layers.cache", ["CacheProtocol", "KeyValueCache"]),
    ],
)
def test_documented_names_are_where_they_belong(module, names):
    found = importlib.import_module(f"curated_transformers.{module}")
    assert [name for name in names if not hasattr(found, name)] == []


def test_all_of_layers_can_be_imported():
    assert sorted(layers.__all__) == sorted(EXPORTS)


@pytest.mark.parametrize("name", BUILDING_BLOCKS)
@pytest.mark.parametrize("module", ["layers", "layers.attention"])
def test_building_blocks_are_refused_with_the_reason(module, name):
    statement = f"from curated_transformers.{module} import {name}"
    with pytest.raises(ImportError, match=f"{name}.*torch building blocks are not part of this"):
        exec(statement)


def test_other_names_are_not_there():
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec("from curated_transformers.layers import Nonsense")
    assert not hasattr(layers, "Nonsense")
    assert not hasattr(layers.attention, "Nonsense")


def test_the_switch_nests_and_goes_back():
    assert _TORCH_SDP.get() is False
    with enable_torch_sdp():
        assert _TORCH_SDP.get() is True
        with enable_torch_sdp(use_torch_sdp=False):
            assert _TORCH_SDP.get() is False
            with enable_torch_sdp(True):
                assert _TORCH_SDP.get() is True
            assert _TORCH_SDP.get() is False
        assert _TORCH_SDP.get() is True
    assert _TORCH_SDP.get() is False


def test_the_switch_goes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), enable_torch_sdp():
        raise ZeroDivisionError
    assert _TORCH_SDP.get() is False


def test_other_threads_have_a_switch_of_their_own():
    with enable_torch_sdp(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(_TORCH_SDP.get).result() is False


@pytest.mark.parametrize("state", [True, False])
def test_results_do_not_depend_on_the_switch(tmp_path, state):
    """Also with padding and a cache."""
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path))
    ids = np.arange(14).reshape(2, 7)
    mask = np.ones((2, 7), dtype=bool)
    mask[1, :3] = False

    def run():
        first = model(ids[:, :5], mask[:, :5], store_cache=True)
        rest = model(ids[:, 5:], mask, cache=first.cache, store_cache=True)
        return [first.logits, rest.logits, rest.cache[1].key, rest.cache[1].value]

    expected = run()
    with enable_torch_sdp(state):
        got = run()
    for mine, right in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine.numpy(), right.numpy())
