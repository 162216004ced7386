"""torch's tensors as masks, caches and logits; only `make oracle` runs this."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from curated_transformers.layers import Activation, AttentionMask, KeyValueCache
from curated_transformers.layers.attention import combine_heads, create_causal_mask, split_heads
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.quantization.bnb import BitsAndBytesConfig

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

MASK = torch.tensor([[True, True, False], [True, False, False]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_are_masked_with_torchs_lowest_value(dtype):
    logits = torch.linspace(-1, 1, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3).to(dtype)
    mask = AttentionMask(MASK)
    expected = torch.where(MASK[:, None, None], logits, torch.finfo(dtype).min)
    assert torch.equal(torch.from_dlpack(mask.apply_logit_mask(logits)), expected)
    added = torch.from_dlpack(mask.logit_mask(dtype))
    assert torch.equal(added, (~MASK[:, None, None]).to(dtype) * torch.finfo(dtype).min)


def test_filters_and_causal_masks_take_torchs_tensors():
    kept = AttentionMask(MASK).filter_batch_items(torch.tensor([False, True]))
    assert kept == AttentionMask(MASK[1:])
    causal = create_causal_mask(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 5, 4))
    expected = torch.tril(torch.ones(5, 5, dtype=torch.bool))[-2:]
    assert torch.equal(torch.from_dlpack(causal.bool_mask)[0, 0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_of_torchs_tensors_goes_on(tmp_path, dtype):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path), dtype=dtype)
    ids = np.arange(12).reshape(2, 6)
    stored = model(ids[:, :4], store_cache=True).cache
    made = [
        KeyValueCache(torch.from_dlpack(c.key).clone(), torch.from_dlpack(c.value).clone())
        for c in stored
    ]
    expected = model(ids[:, 4:], cache=stored).logits
    np.testing.assert_array_equal(model(ids[:, 4:], cache=made).logits.numpy(), expected.numpy())


def test_heads_are_split_as_torch_does():
    given = torch.arange(2 * 3 * 8, dtype=torch.bfloat16).reshape(2, 3, 8)
    heads = split_heads(given, 2)
    expected = given.reshape(2, 3, 2, 4).transpose(1, 2)
    assert torch.equal(torch.from_dlpack(heads), expected)
    assert torch.equal(torch.from_dlpack(combine_heads(expected)), given)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        (Activation.ReLU, torch.nn.functional.relu),
        (Activation.GELU, torch.nn.functional.gelu),
        (Activation.GELUNew, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        (Activation.SiLU, torch.nn.functional.silu),
    ],
)
def test_activations_are_torchs(activation, function):
    """Two math libraries: a few roundings of at most 10."""
    x = torch.linspace(-10, 10, 1001)
    np.testing.assert_allclose(activation.module()(x), function(x).numpy(), atol=3e-6)


def test_quantization_takes_torchs_types():
    config = BitsAndBytesConfig.for_4bit(compute_dtype=torch.float16)
    assert config == BitsAndBytesConfig.for_4bit(compute_dtype="float16")
    with pytest.raises(ValueError, match=r"Unsupported compute dtype `torch\.float64`"):
        BitsAndBytesConfig.for_4bit(compute_dtype=torch.float64)
