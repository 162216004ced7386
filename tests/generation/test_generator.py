"""Generation on piece ids, against a loop without a cache that takes the arg max of the logits."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from curated_transformers import Tensor
from curated_transformers.generation import Generator, GreedyGeneratorConfig, SampleGeneratorConfig
from curated_transformers.layers import AttentionMask
from curated_transformers.models.llama import LlamaCausalLM

PIECES, POSITIONS = 50, 24
RNG = np.random.default_rng(11)
PROMPTS = [RNG.integers(0, PIECES, n).tolist() for n in (3, 1, 8, 5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return LlamaCausalLM.from_path(small_models.llama(folder, positions=POSITIONS, spread=3))


def greedy_loop(model, prompt, n, masked=()):
    ids = list(prompt)
    for _ in range(n):
        logits = np.asarray(model([ids]).logits)[0, -1].copy()
        logits[list(masked)] = -np.inf
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :]


def pad_left(prompts):
    width = max(map(len, prompts))
    ids = np.zeros((len(prompts), width), dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :], mask[i, width - len(prompt) :] = prompt, True
    return ids, mask


def pad_right(ids, mask):
    order = np.argsort(~mask, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(mask, order, axis=1)


def generate(model, prompts, config, form=lambda ids, mask: (ids, mask)):
    ids, mask = form(*pad_left(prompts))
    texts = [[] for _ in prompts]
    for numbers, pieces in Generator(model)(ids=ids, attention_mask=mask, config=config):
        for number, piece in zip(numbers.tolist(), pieces.tolist(), strict=True):
            texts[number] += piece
    return texts


def greedy(eos_id=-1, n=10, masked=None):
    return GreedyGeneratorConfig(masked, eos_id, n)


def test_greedy_pieces_are_the_loops(model):
    assert generate(model, PROMPTS, greedy()) == [greedy_loop(model, p, 10) for p in PROMPTS]


@pytest.mark.parametrize(
    "form",
    [
        lambda ids, mask: (Tensor(ids), AttentionMask(mask)),
        lambda ids, mask: (ids.astype(np.int32), Tensor(mask)),
        lambda ids, mask: (ids.tolist(), mask.tolist()),
        lambda ids, mask: pad_right(ids, mask),
    ],
)
def test_prompts_may_come_in_any_form(model, form):
    expected = generate(model, PROMPTS, greedy())
    assert generate(model, PROMPTS, greedy(), form) == expected


def test_each_step_yields_its_sequences_and_pieces(model):
    ids, mask = pad_left(PROMPTS)
    steps = list(Generator(model)(ids=ids, attention_mask=mask, config=greedy(n=4)))
    assert len(steps) == 4
    expected = np.array([greedy_loop(model, prompt, 4) for prompt in PROMPTS])
    for step, (numbers, pieces) in enumerate(steps):
        assert (numbers.dtype, pieces.dtype) == ("int64", "int64")
        assert (numbers.shape, pieces.shape) == ((4,), (4, 1))
        order = np.argsort(numbers.numpy())
        np.testing.assert_array_equal(numbers.numpy()[order], np.arange(4))
        np.testing.assert_array_equal(pieces.numpy()[order, 0], expected[:, step])


def test_sequences_that_have_ended_are_yielded_no_more(model):
    texts = [greedy_loop(model, prompt, 8) for prompt in PROMPTS]
    eos = texts[0][3]
    ends = [text.index(eos) if eos in text else 8 for text in texts]
    assert len(set(ends)) > 1  # else this shows nothing; take another seed
    ids, mask = pad_left(PROMPTS)
    steps = Generator(model)(ids=ids, attention_mask=mask, config=greedy(eos, 8))
    for step, (numbers, pieces) in enumerate(steps):
        assert set(numbers.tolist()) == {i for i in range(4) if ends[i] > step}
        assert eos not in pieces.numpy()
    assert step == max(ends) - 1


@pytest.fixture(scope="module")
def varied(model):
    """A prompt, and its text of pieces that are all different."""
    prompt = PROMPTS[2]
    text = greedy_loop(model, prompt, 5)
    assert len(set(text)) == 5  # else the tests show nothing; take another seed
    return prompt, text


@pytest.mark.parametrize("place", [0, 1, 4])
def test_the_end_piece_ends_and_is_not_emitted(model, varied, place):
    prompt, text = varied
    assert generate(model, [prompt], greedy(text[place], 10)) == [text[:place]]


def test_the_end_piece_at_the_maximum_length_is_not_emitted_either(model, varied):
    prompt, text = varied
    assert generate(model, [prompt], greedy(text[3], 4)) == [text[:3]]
    assert generate(model, [prompt], greedy(text[3], 3)) == [text[:3]]


@pytest.mark.parametrize("config", [GreedyGeneratorConfig, SampleGeneratorConfig])
def test_in_a_batch_too_the_end_piece_at_the_maximum_length_ends_its_row(model, varied, config):
    """Both reasons to end in one step: none may undo the other. The other rows have one reason."""
    prompt, text = varied
    others = [p for p in PROMPTS if text[3] not in greedy_loop(model, p, 4)]
    assert len(others) > 1  # else the test shows nothing; take another seed
    options = {"top_k": 1} if config is SampleGeneratorConfig else {}
    batch = [others[0], prompt, *others[1:]]
    ids, mask = pad_left(batch)
    settings = config(eos_id=text[3], max_generated_pieces=4, **options)
    steps = list(Generator(model)(ids=ids, attention_mask=mask, config=settings))
    assert [sorted(numbers.tolist()) for numbers, _ in steps[:3]] == [[*range(len(batch))]] * 3
    assert sorted(steps[3][0].tolist()) == [i for i in range(len(batch)) if i != 1]
    assert len(steps) == 4
    expected = [greedy_loop(model, p, 4) for p in batch]
    expected[1] = text[:3]
    assert generate(model, batch, settings) == expected


def test_a_sequence_that_ends_at_once_yields_nothing(model):
    eos = greedy_loop(model, PROMPTS[0], 1)[0]
    ids, mask = pad_left(PROMPTS[:1])
    assert list(Generator(model)(ids=ids, attention_mask=mask, config=greedy(eos))) == []


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_maximum_is_the_number_of_pieces(model, n):
    assert [len(text) for text in generate(model, PROMPTS, greedy(n=n))] == [n] * 4


@pytest.mark.parametrize("n", [0, -1])
def test_without_a_maximum_the_models_positions_end_a_sequence(model, n):
    """The last piece is chosen when all positions are taken: it needs none itself."""
    expected = [greedy_loop(model, p, POSITIONS - len(p) + 1) for p in PROMPTS]
    assert generate(model, PROMPTS, greedy(n=n)) == expected


def test_a_prompt_that_fills_the_positions_gives_one_piece(model):
    full = RNG.integers(0, PIECES, POSITIONS).tolist()
    expected = [greedy_loop(model, full, 1), greedy_loop(model, PROMPTS[0], 5)]
    assert generate(model, [full, PROMPTS[0]], greedy(n=5)) == expected


def test_a_prompt_that_is_too_long_is_named(model):
    long = [1] * (POSITIONS + 1)
    message = "prompt 1: a prompt of 25 pieces is longer than the 24 positions of the model"
    with pytest.raises(ValueError, match=message):
        generate(model, [PROMPTS[0], long], greedy())


@pytest.mark.parametrize("n_masked", [1, 20, PIECES - 1])
def test_masked_pieces_are_never_chosen(model, n_masked):
    likely = np.argsort(-np.asarray(model(PROMPTS[:1]).logits)[0, -1])
    masked = set(likely[:n_masked].tolist())
    expected = [greedy_loop(model, prompt, 6, masked) for prompt in PROMPTS]
    assert generate(model, PROMPTS, greedy(n=6, masked=masked)) == expected
    config = SampleGeneratorConfig(masked, -1, 15, seed=2)
    assert not masked & {p for text in generate(model, PROMPTS, config) for p in text}


def test_a_masked_end_piece_never_ends(model):
    eos = greedy_loop(model, PROMPTS[0], 1)[0]
    assert len(generate(model, PROMPTS[:1], greedy(eos, 9, {eos}))[0]) == 9


def test_no_prompts_give_no_steps(model):
    steps = Generator(model)(
        ids=np.zeros((0, 3), int), attention_mask=np.zeros((0, 3), bool), config=greedy()
    )
    assert list(steps) == []


def test_the_generator_is_lazy(model):
    steps = Generator(model)(ids="nonsense", attention_mask=None, config=None)
    with pytest.raises(ValueError, match="ids must have the shape"):
        next(steps)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_models_generate_what_their_calls_say(tmp_path, dtype):
    """The loop sees logits that were rounded to dtype, the generator's are not: where both agree
    that a piece wins by more than the rounding (2^-8 of at most 16), the choice is the same."""
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path, dtype=dtype, spread=3))
    (text,) = generate(model, PROMPTS[:1], greedy(n=12))
    logits = np.asarray(model([PROMPTS[0] + text]).logits).astype(np.float32)[0]
    chosen = logits[len(PROMPTS[0]) - 1 : -1]
    assert (chosen[np.arange(12), text] >= chosen.max(axis=1) - 16 / 2**7).all()
