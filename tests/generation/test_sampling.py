"""Sampling against a NumPy statement of the distribution, and what the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from curated_transformers.generation import (
    Generator,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
)
from curated_transformers.models.llama import LlamaCausalLM

PROMPT = [3, 1, 4]
N = 3000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return LlamaCausalLM.from_path(small_models.llama(folder, pieces=20, spread=2))


def generate(model, prompts, config):
    """All prompts are of one length."""
    ids = np.array(prompts)
    texts = [[] for _ in prompts]
    steps = Generator(model)(ids=ids, attention_mask=np.ones_like(ids, dtype=bool), config=config)
    for numbers, pieces in steps:
        for number, (piece,) in zip(numbers.tolist(), pieces.tolist(), strict=True):
            texts[number].append(piece)
    return texts


def distribution(
    logits,
    masked=(),
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    min_p=0.0,
    prompt=(),
    generated=(),
    bad_words=(),
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
):
    """The mask, bad words, penalties, the temperature, top-k with all ties, top-p with the sum
    before a piece below p, min-p."""
    logits = logits.astype(np.float64)
    text = [*prompt, *generated]
    for piece in set(text):
        logits[piece] *= 1 / repetition_penalty if logits[piece] > 0 else repetition_penalty
    for piece in set(generated):
        count = generated.count(piece)
        logits[piece] -= presence_penalty + frequency_penalty * count
    logits[list(masked)] = -np.inf
    for *begin, last in bad_words:
        if text[len(text) - len(begin) :] == begin:
            logits[last] = -np.inf
    logits = logits / temperature
    if 0 < top_k < len(logits):
        logits[logits < np.sort(logits)[-top_k]] = -np.inf
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    if top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        before[0] = -1
        weights[order[before >= top_p]] = 0
    weights[weights < min_p * weights.max()] = 0
    return weights / weights.sum()


SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 5, "temperature": 2.0},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.8, "temperature": 2.0},
    {"top_p": 0.7, "top_k": 4},
    {"top_p": 0.9, "top_k": 8, "temperature": 1.5},
    {"masked": [0, 1, 2, 3, 4, 5]},
    {"masked": [2, 5, 8, 11], "top_p": 0.8, "top_k": 6, "temperature": 1.3},
    {"min_p": 0.2},
    {"min_p": 0.1, "top_k": 10, "top_p": 0.9, "temperature": 1.7},
    {"min_p": 1.0},
    {"repetition_penalty": 2.5},
    {"repetition_penalty": 0.4, "top_k": 6},
    {"presence_penalty": 5.0, "frequency_penalty": 5.0},  # of what was generated: nothing yet
    {"bad_words": [[3, 1, 4, 2], [4, 5], [1, 3, 7], [8]], "temperature": 2.0},
    {"bad_words": [[1, 4, 0]], "repetition_penalty": 1.5, "masked": [5], "top_p": 0.95},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_pieces_are_drawn_from_the_documented_distribution(model, settings):
    logits = np.asarray(model([PROMPT]).logits)[0, -1].copy()
    expected = distribution(logits, prompt=PROMPT, **settings)
    rest = {name: value for name, value in settings.items() if name != "masked"}
    config = SampleGeneratorConfig(
        set(settings.get("masked", ())) or None, -1, 1, seed=1234, **rest
    )
    drawn = np.array(generate(model, [PROMPT] * N, config))[:, 0]
    counts = np.bincount(drawn, minlength=20)
    assert not counts[expected == 0].any()  # nothing outside the support ...
    assert counts[expected * N > 20].all()  # ... and all of it that is not too rare
    sigma = np.sqrt(N * expected * (1 - expected))
    assert (np.abs(counts - N * expected) <= 5 * sigma + 1e-9).all()
    assert_drawn_from(expected, counts)


def assert_drawn_from(expected, counts):
    """Pearson's test. The sum has as many degrees of freedom as cells but one; for those its normal
    approximation (Wilson and Hilferty 1931) is less than 4.5 sigma but once in 300000."""
    n = counts.sum()
    rare = expected * n < 5
    wanted = np.append(expected[~rare], expected[rare].sum()) * n
    seen = np.append(counts[~rare], counts[rare].sum())
    keep = wanted > 0
    freedom = keep.sum() - 1
    if freedom < 1:
        return
    square = ((seen - wanted)[keep] ** 2 / wanted[keep]).sum()
    normal = ((square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
    assert normal < 4.5


PENALTIES = [
    {"presence_penalty": 1.5},
    {"frequency_penalty": 2.0},
    {"presence_penalty": -1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.3},
    {"repetition_penalty": 1.8, "top_k": 8},
    {"bad_words": [[4, 4, 0], [10, 11], [0, 0], [5]], "min_p": 0.02},
]


@pytest.mark.parametrize("settings", PENALTIES, ids=str)
def test_later_pieces_are_drawn_by_what_was_said_before(model, settings):
    """The third piece, given the first two."""
    config = SampleGeneratorConfig(eos_id=-1, max_generated_pieces=3, seed=77, **settings)
    texts = np.array(generate(model, [PROMPT] * 4000, config))
    n_seen = 0
    for pair in np.unique(texts[:, :2], axis=0):
        rows = (texts[:, :2] == pair).all(axis=1)
        if rows.sum() < 60:
            continue
        generated = pair.tolist()
        logits = np.asarray(model([[*PROMPT, *generated]]).logits)[0, -1].copy()
        expected = distribution(logits, prompt=PROMPT, generated=generated, **settings)
        counts = np.bincount(texts[rows, 2], minlength=20)
        assert not counts[expected == 0].any()
        assert_drawn_from(expected, counts)
        n_seen += 1
    assert n_seen > 5


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.5},
        {"presence_penalty": 0.7, "frequency_penalty": 0.3},
        {"bad_words": [[7, 14], [4, 7], [10]]},
    ],
    ids=str,
)
def test_greedy_pieces_obey_them_as_well(model, settings):
    config = GreedyGeneratorConfig(None, -1, 30, **settings)
    (text,) = generate(model, [PROMPT], config)
    for i, piece in enumerate(text):
        logits = np.asarray(model([[*PROMPT, *text[:i]]]).logits)[0, -1].copy()
        expected = distribution(logits, prompt=PROMPT, generated=text[:i], **settings)
        assert piece == expected.argmax()
    assert [text] != generate(model, [PROMPT], GreedyGeneratorConfig(None, -1, 30))


def test_bad_words_never_occur(model):
    words = [[7], [1, 2], [3, 3, 3], [4, 5, 6, 7, 8]]
    words += np.random.default_rng(0).integers(0, 20, (60, 2)).tolist()
    config = SampleGeneratorConfig(None, -1, 60, temperature=3.0, seed=6, bad_words=words)
    for text in generate(model, [PROMPT] * 20, config):
        whole = [*PROMPT, *text]
        for word in words:
            starts = range(len(PROMPT) - len(word) + 1, len(whole) - len(word) + 1)
            assert not any(whole[i : i + len(word)] == word for i in starts)


@pytest.mark.parametrize("top_p", [0.0, 1e-6])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_top_p_acts_on_each_row_of_a_batch_in_each_step(model, top_p, temperature):
    """So small a top-p leaves the most probable piece, whatever the temperature."""
    prompts = np.random.default_rng(3).integers(0, 20, (6, 3)).tolist()
    greedy = generate(model, prompts, GreedyGeneratorConfig(None, -1, 12))
    config = SampleGeneratorConfig(None, -1, 12, temperature=temperature, top_p=top_p, seed=4)
    assert generate(model, prompts, config) == greedy
    assert len({tuple(text) for text in greedy}) > 1  # else this shows nothing; another seed


def test_later_steps_are_drawn_from_what_was_generated(model):
    """The second piece, given the first one."""
    config = SampleGeneratorConfig(eos_id=-1, max_generated_pieces=2, top_k=2, seed=5)
    texts = np.array(generate(model, [PROMPT] * N, config))
    for first in np.unique(texts[:, 0]):
        counts = np.bincount(texts[texts[:, 0] == first, 1], minlength=20)
        logits = np.asarray(model([[*PROMPT, int(first)]]).logits)[0, -1].copy()
        expected = distribution(logits, top_k=2)
        n = counts.sum()
        sigma = np.sqrt(n * expected * (1 - expected))
        assert (np.abs(counts - n * expected) <= 5 * sigma + 1e-9).all()


def sample(n=12, **options):
    return SampleGeneratorConfig(eos_id=-1, max_generated_pieces=n, **options)


def test_the_same_seed_gives_the_same_texts(model):
    prompts = [[1, 2], [3, 4], [5, 6]]
    assert generate(model, prompts, sample(seed=9)) == generate(model, prompts, sample(seed=9))
    assert generate(model, prompts, sample(seed=9)) != generate(model, prompts, sample(seed=10))


def test_without_a_seed_every_call_draws_anew(model):
    texts = [generate(model, [PROMPT], sample(20)) for _ in range(3)]
    assert texts[0] != texts[1] or texts[1] != texts[2]


def test_equal_prompts_in_one_batch_get_texts_of_their_own(model):
    texts = generate(model, [PROMPT] * 8, sample(20, seed=3))
    assert len({tuple(text) for text in texts}) == 8


@pytest.mark.parametrize("n_others", [0, 1, 5, 40])
def test_a_text_does_not_depend_on_the_others_in_its_batch(model, n_others):
    """Also not where more prompts wait than there are slots."""
    rng = np.random.default_rng(n_others)
    others = rng.integers(0, 20, (n_others, 3)).tolist()
    alone = generate(model, [PROMPT], sample(seed=21))
    assert generate(model, [PROMPT, *others], sample(seed=21))[:1] == alone


def test_a_text_is_the_beginning_of_a_longer_one(model):
    (short,) = generate(model, [PROMPT], sample(5, seed=2))
    (long,) = generate(model, [PROMPT], sample(15, seed=2))
    assert long[:5] == short


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**64 - 1])
def test_seeds_may_be_any_64_bits(model, seed):
    assert generate(model, [PROMPT], sample(seed=seed)) == generate(
        model, [PROMPT], sample(seed=seed)
    )
