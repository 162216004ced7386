"""Generator configurations: the documented fields, and what is refused when generating."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import small_models

from curated_transformers.generation import (
    Generator,
    GeneratorConfig,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
)
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM, LlamaDecoder

IDS = np.array([[1, 2, 3]])
GOOD = {"eos_id": 0, "max_generated_pieces": 3}


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return Generator(LlamaCausalLM.from_path(small_models.llama(tmp_path_factory.mktemp("llama"))))


def generate(generator, config, ids=IDS, mask=None):
    mask = np.ones_like(ids, dtype=bool) if mask is None else mask
    return list(generator(ids=ids, attention_mask=mask, config=config))


def test_fields_have_the_documented_order_and_defaults():
    assert [f.name for f in dataclasses.fields(GreedyGeneratorConfig) if not f.kw_only] == [
        "masked_pieces",
        "eos_id",
        "max_generated_pieces",
    ]
    config = SampleGeneratorConfig({1}, 2, 3, 0.5, 4, 0.9)
    assert config == SampleGeneratorConfig(
        masked_pieces={1},
        eos_id=2,
        max_generated_pieces=3,
        temperature=0.5,
        top_k=4,
        top_p=0.9,
    )
    config = SampleGeneratorConfig()
    assert (config.temperature, config.top_k, config.top_p) == (1.0, 0, 1.0)
    assert (config.masked_pieces, config.eos_id, config.max_generated_pieces) == (None, None, None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GreedyGeneratorConfig(max_generated_pieces=3), "End-of-sequence piece id is unset"),
        (GreedyGeneratorConfig(eos_id=0), "Maximum number of generation steps is unset"),
        (SampleGeneratorConfig(), "End-of-sequence piece id is unset"),
        (GeneratorConfig(**GOOD), "Unknown generator configuration: GeneratorConfig"),
        (GreedyGeneratorConfig({3, -1}, **GOOD), "must be >= 0"),
        (GreedyGeneratorConfig({50}, **GOOD), "must be < 50, but got 50"),
        *(
            (
                SampleGeneratorConfig(temperature=t, **GOOD),
                f"The temperature must be a non-zero positive value, was: {t}",
            )
            for t in (0, 0.0, -1.0, math.nan)
        ),
        *(
            (
                SampleGeneratorConfig(top_p=p, **GOOD),
                rf"Top-p probability must be between 0 and 1 \(inclusive\), was: {p}",
            )
            for p in (-0.1, 1.1, math.nan)
        ),
        (SampleGeneratorConfig(min_p=1.5, **GOOD), "Min-p probability must be between 0 and 1"),
        *(
            (GreedyGeneratorConfig(repetition_penalty=x, **GOOD), "repetition penalty must be abo")
            for x in (0, -1.5, math.nan)
        ),
        (GreedyGeneratorConfig(presence_penalty=math.nan, **GOOD), "presence_penalty must be"),
        (GreedyGeneratorConfig(frequency_penalty=math.inf, **GOOD), "frequency_penalty must be"),
        (GreedyGeneratorConfig(num_return_sequences=0, **GOOD), "must be at least 1, was: 0"),
        (GreedyGeneratorConfig(logprobs=21, **GOOD), "logprobs must be between 0 and 20, was: 21"),
        (GreedyGeneratorConfig(logprobs=-1, **GOOD), "logprobs must be between 0 and 20, was: -1"),
        (GreedyGeneratorConfig(stop="", **GOOD), "stop must be strings that are not empty"),
        (GreedyGeneratorConfig(stop=["a", 3], **GOOD), "stop must be strings that are not empty"),
        (GreedyGeneratorConfig(bad_words=[[1], []], **GOOD), "must have at least one piece"),
        (GreedyGeneratorConfig(bad_words=[[50]], **GOOD), "must be < 50, but got 50"),
    ],
)
def test_unusable_settings_are_refused_at_the_first_step(generator, config, message):
    steps = generator(ids=IDS, attention_mask=np.ones_like(IDS, dtype=bool), config=config)
    with pytest.raises(ValueError, match=message):
        next(steps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_generated_pieces": 1.5}, "max_generated_pieces must be a whole number, got 1.5"),
        ({"max_generated_pieces": "3"}, "max_generated_pieces must be a whole number, got '3'"),
        ({"top_k": "3"}, "top_k must be a whole number, got '3'"),
        ({"top_k": None}, "top_k must be a whole number, got None"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"logprobs": "all"}, "logprobs must be a whole number, got 'all'"),
        ({"num_return_sequences": None}, "num_return_sequences must be a whole number, got None"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"temperature": None}, "temperature must be a number, got None"),
        ({"top_p": "0.5"}, "top_p must be a number, got '0.5'"),
        ({"min_p": None}, "min_p must be a number, got None"),
        ({"repetition_penalty": [1.2]}, r"repetition_penalty must be a number, got \[1.2\]"),
        ({"presence_penalty": None}, "presence_penalty must be a number, got None"),
        ({"masked_pieces": 5}, "masked_pieces must be piece ids, got 5"),
        ({"masked_pieces": "abc"}, "masked_pieces must be piece ids, got 'abc'"),
        ({"masked_pieces": {1.5}}, "each piece id of masked_pieces must be a whole number"),
        ({"bad_words": 5}, "bad_words must be lists of piece ids, got 5"),
        ({"bad_words": [1, 2]}, "a word of bad_words must be piece ids, got 1"),
        ({"bad_words": ["the"]}, "a word of bad_words must be piece ids, got 'the'"),
        ({"bad_words": [[1.5]]}, "each piece id of a word of bad_words must be a whole number"),
        ({"eos_id": "</s>"}, "each piece id of eos_id must be a whole number"),
        ({"eos_id": 1.5}, "each piece id of eos_id must be a whole number, got 1.5"),
        ({"logits_processor": 5}, "logits_processor must be callable, got 5"),
        ({"stop_when": 5}, "stop_when must be callable, got 5"),
        ({"stop": 5}, "stop must be a string or several, got 5"),
    ],
)
def test_settings_of_another_type_are_named(generator, settings, message):
    with pytest.raises(TypeError, match=message):
        generate(generator, SampleGeneratorConfig(**{**GOOD, **settings}))


@pytest.mark.parametrize("method", ["stop_condition", "logits_transform"])
def test_a_method_that_returns_nothing_is_told(generator, method):
    """Without a condition a text would not end."""
    kind = type("Config", (GreedyGeneratorConfig,), {method: lambda self: None})
    with pytest.raises(TypeError, match=f"{method} .*None"):
        generate(generator, kind(**GOOD))


def test_settings_may_be_numbers_and_arrays_of_numpy(generator):
    plain = {"seed": 3, "top_k": 4, "temperature": 0.5, "logprobs": 1, "max_generated_pieces": 9}
    config = SampleGeneratorConfig(
        eos_id=np.array([48, 49]),
        masked_pieces=np.array([7, 8]),
        bad_words=np.array([[1, 2], [3, 4]]),
        **{name: np.array(value)[()] for name, value in plain.items()},
    )
    expected = SampleGeneratorConfig(
        eos_id=[48, 49], masked_pieces={7, 8}, bad_words=[[1, 2], [3, 4]], **plain
    )
    pieces = [piece.item() for _, piece in generate(generator, config)]
    assert pieces == [piece.item() for _, piece in generate(generator, expected)]


@pytest.mark.parametrize("maximum", [2**31, 2**70])
def test_a_maximum_that_nothing_comes_to_is_no_limit(generator, maximum):
    steps = generator(
        ids=IDS,
        attention_mask=np.ones_like(IDS, dtype=bool),
        config=GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=maximum),
    )
    assert len([next(steps) for _ in range(9)]) == 9


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (None, "NoneType"),
        ({"max_generated_pieces": 3}, "dict"),
        (GreedyGeneratorConfig, "the class GreedyGeneratorConfig itself"),
    ],
)
def test_what_is_no_configuration_is_named(generator, config, name):
    with pytest.raises(ValueError, match=f"Unknown generator configuration: {name}"):
        generate(generator, config)


@pytest.mark.parametrize("top_k", [-1, 0, 50, 10**6, 2**40])
def test_a_top_k_of_nothing_or_of_everything_keeps_all_pieces(generator, top_k):
    without = generate(generator, SampleGeneratorConfig(seed=1, **GOOD))
    config = SampleGeneratorConfig(seed=1, top_k=top_k, **GOOD)
    assert [p.item() for _, p in generate(generator, config)] == [p.item() for _, p in without]


@pytest.mark.parametrize("temperature", [1e-30, 1e-300])
def test_a_tiny_temperature_is_the_most_probable_piece(generator, temperature):
    greedy = generate(generator, GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=5))
    config = SampleGeneratorConfig(eos_id=-1, max_generated_pieces=5, temperature=temperature)
    assert [p.item() for _, p in generate(generator, config)] == [p.item() for _, p in greedy]


def test_when_all_pieces_are_masked_none_can_be_chosen(generator):
    config = GreedyGeneratorConfig(set(range(50)), **GOOD)
    with pytest.raises(ValueError, match="no piece can be chosen"):
        generate(generator, config)


@pytest.mark.parametrize("eos_id", [2**31, -(2**40)])
def test_an_end_piece_that_is_no_piece_id_is_refused(generator, eos_id):
    with pytest.raises(IndexError, match="no piece id"):
        generate(generator, GreedyGeneratorConfig(eos_id=eos_id, max_generated_pieces=1))


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (IDS[0], np.ones(3, bool), r"ids must have the shape \[batch, seq\], has 1 dim"),
        (IDS, np.ones((1, 3), int), "attention mask to be of dtype bool, was: int64"),
        (IDS, np.ones((1, 2), bool), r"mask has the shape \[1, 2\], the ids \[1, 3\]"),
        (np.r_[IDS, IDS], np.ones((3, 2), bool), r"mask has the shape \[3, 2\], the ids \[2, 3\]"),
        (IDS, np.zeros((1, 3), bool), "prompt 0: a prompt needs at least one piece"),
    ],
)
def test_ids_and_masks_that_do_not_fit_are_refused(generator, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        generate(generator, GreedyGeneratorConfig(**GOOD), ids, mask)


@pytest.mark.parametrize("wrong", [50, -1, 2**32 + 1])
def test_ids_outside_the_vocabulary_are_refused(generator, wrong):
    with pytest.raises(IndexError, match=rf"prompt 1: .*{wrong} at \[2\]"):
        generate(generator, GreedyGeneratorConfig(**GOOD), np.array([[1, 2, 3], [1, 2, wrong]]))


def test_ids_that_are_no_integers_are_refused(generator):
    with pytest.raises(TypeError, match="cannot convert float32 to int32"):
        generate(generator, GreedyGeneratorConfig(**GOOD), IDS.astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "write"), [(LlamaDecoder, small_models.llama), (BERTEncoder, small_models.bert)]
)
def test_only_causal_language_models_generate(tmp_path, kind, write):
    generator = Generator(kind.from_path(write(tmp_path)))
    with pytest.raises(ValueError, match="only a causal language model"):
        generate(generator, GreedyGeneratorConfig(**GOOD))


@pytest.mark.parametrize("word", [[1, 50], [-1, 2], [2**31, 1]])
def test_bad_words_of_unknown_pieces_are_refused(generator, word):
    with pytest.raises(IndexError, match=r"piece id"):
        generate(generator, GreedyGeneratorConfig(bad_words=[[1, 2], word], **GOOD))
