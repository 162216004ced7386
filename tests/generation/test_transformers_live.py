"""Penalties, bad words and cuts beside those of transformers as it runs."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from curated_transformers.generation import (
    Generator,
    GreedyGeneratorConfig,
    MinPTransform,
    TemperatureTransform,
    TopKTransform,
    TopPTransform,
)
from curated_transformers.models.llama import LlamaCausalLM

pytestmark = pytest.mark.slow

LOWEST = np.finfo(np.float32).min


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from transformers import AutoModelForCausalLM

    folder = small_models.llama(
        tmp_path_factory.mktemp("llama"), pieces=40, positions=128, spread=3
    )
    return LlamaCausalLM.from_path(folder), AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"repetition_penalty": 0.8}, {"repetition_penalty": 0.8}),
        ({"bad_words": 40}, {"bad_words_ids": 40}),
        (
            {"repetition_penalty": 1.7, "bad_words": 20},
            {"repetition_penalty": 1.7, "bad_words_ids": 20},
        ),
    ],
    ids=str,
)
def test_greedy_texts_are_those_of_transformers(models, seed, ours, theirs):
    import torch

    mine, other = models
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, 40, 9).tolist()

    def words(options, name):
        if name not in options:
            return options
        word_rng = np.random.default_rng(seed)
        lists = [word_rng.integers(0, 40, 1 + i % 2).tolist() for i in range(options[name])]
        singles = [word for word in lists if len(word) == 1][:5]
        return {**options, name: [*singles, *(word for word in lists if len(word) > 1)]}

    expected = other.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 9, dtype=torch.int64),
        do_sample=False,
        max_new_tokens=40,
        min_new_tokens=40,
        pad_token_id=0,
        eos_token_id=None,
        **words(theirs, "bad_words_ids"),
    )[0, 9:].tolist()
    config = GreedyGeneratorConfig(None, -1, 40, **words(ours, "bad_words"))
    steps = Generator(mine)(ids=[prompt], attention_mask=[[True] * 9], config=config)
    assert [pieces.item() for _, pieces in steps] == expected


def test_transforms_leave_what_those_of_transformers_leave():
    import torch
    from transformers import generation

    logits = np.random.default_rng(1).normal(size=(50, 30)).astype(np.float32) * 3
    pairs = [
        (TemperatureTransform(0.6), generation.TemperatureLogitsWarper(0.6)),
        *((TopKTransform(k), generation.TopKLogitsWarper(k)) for k in (1, 5, 29)),
        *((TopPTransform(p), generation.TopPLogitsWarper(p)) for p in (0.1, 0.5, 0.9)),
        *((MinPTransform(p), generation.MinPLogitsWarper(p)) for p in (0.05, 0.3, 0.9)),
    ]
    for mine, other in pairs:
        expected = other(None, torch.from_numpy(logits.copy())).numpy()
        result = mine(logits)
        np.testing.assert_array_equal(result == LOWEST, np.isneginf(expected))
        kept = result != LOWEST
        np.testing.assert_allclose(result[kept], expected[kept], rtol=1e-6)
