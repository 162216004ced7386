"""Slots: more prompts than slots, cancelled and abandoned sequences."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
import small_models
from byte_tokenizer import N_PIECES, byte_tokenizer

from curated_transformers._core import FINISH_EOS, FINISH_LENGTH, FINISH_NONE, Session
from curated_transformers.generation import Generator, GreedyGeneratorConfig, StringGenerator
from curated_transformers.models.llama import LlamaCausalLM

RNG = np.random.default_rng(17)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return LlamaCausalLM.from_path(small_models.llama(folder, pieces=N_PIECES, spread=3))


def texts_of(events):
    texts = {}
    for number, piece, _ in events:
        if piece >= 0:
            texts.setdefault(number, []).append(piece)
    return texts


def alone(model, prompt, n):
    session = Session(model.core)
    session.add(prompt, max_pieces=n)
    return texts_of(session.run())[0]


PROMPTS = [RNG.integers(0, N_PIECES, 1 + i % 7) for i in range(40)]
LENGTHS = [1 + 5 * i % 13 for i in range(40)]


@pytest.mark.parametrize(
    ("slots", "tokens"), [(1, 2048), (2, 1), (3, 8), (7, 2048), (64, 2048), (64, 3), (0, 0)]
)
def test_slots_and_tokens_of_a_step_change_no_text(model, slots, tokens):
    session = Session(model.core, max_slots=slots, max_batch_tokens=tokens)
    numbers = [
        session.add(prompt, max_pieces=n) for prompt, n in zip(PROMPTS, LENGTHS, strict=True)
    ]
    assert numbers == list(range(40))
    events = session.run()
    assert session.is_done
    expected = [alone(model, p, n) for p, n in zip(PROMPTS, LENGTHS, strict=True)]
    texts = texts_of(events)
    assert [texts[i] for i in range(40)] == expected
    ends = [number for number, _, finish in events if finish != FINISH_NONE]
    assert sorted(ends) == list(range(40))


def test_no_more_sequences_run_than_there_are_slots(model):
    session = Session(model.core, max_slots=3)
    for prompt, n in zip(PROMPTS, LENGTHS, strict=True):
        session.add(prompt, max_pieces=n)
    seen, ended = set(), set()
    while not session.is_done:
        for number, _, finish in session.run(1):
            seen.add(number)
            if finish:
                ended.add(number)
        assert len(seen - ended) <= 3
    assert len(ended) == 40


def test_events_tell_why_a_sequence_ended(model):
    first, second, *_ = alone(model, [1, 2], 4)
    session = Session(model.core)
    session.add([1, 2], max_pieces=2)
    session.add([1, 2], max_pieces=4, eos_ids=[second] if second != first else [first])
    events = session.run()
    assert [e for e in events if e[0] == 0][-1] == (0, second, FINISH_LENGTH)
    assert [e for e in events if e[0] == 1][-1] == (1, -1, FINISH_EOS)


def test_a_session_takes_more_prompts_after_it_has_ended(model):
    session = Session(model.core)
    for _ in range(3):
        number = session.add([5, 6], max_pieces=4)
        assert texts_of(session.run()) == {number: alone(model, [5, 6], 4)}
        assert session.is_done


def test_run_stops_after_the_steps_that_were_asked_for(model):
    session = Session(model.core)
    session.add([5, 6], max_pieces=6)
    assert session.run(0) == []
    events = session.run(1) + session.run(2)
    assert len(events) == 3
    assert not session.is_done
    assert texts_of(events + session.run()) == {0: alone(model, [5, 6], 6)}


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_cancelled_sequence_gives_its_slot_to_the_next(model, steps):
    session = Session(model.core, max_slots=1)
    session.add([1, 2], max_pieces=100)
    session.add([3, 4], max_pieces=5)
    session.add([5, 6], max_pieces=5)
    before = session.run(steps)
    session.cancel(0)
    session.cancel(2)
    assert texts_of(before).get(0, []) == alone(model, [1, 2], 100)[:steps]
    assert texts_of(session.run()) == {1: alone(model, [3, 4], 5)}
    assert session.is_done


@pytest.mark.parametrize("number", [-1, 7, 2**40])
def test_cancelling_what_is_not_there_does_nothing(model, number):
    session = Session(model.core)
    session.add([1, 2], max_pieces=3)
    session.cancel(number)
    assert texts_of(session.run()) == {0: alone(model, [1, 2], 3)}
    session.cancel(0)


def test_a_refused_prompt_leaves_the_others_alone(model):
    session = Session(model.core)
    session.add([1, 2], max_pieces=3)
    for wrong in ([], [N_PIECES], [[1]], ["a"], None, [1.5]):
        with pytest.raises((ValueError, IndexError, TypeError)):
            session.add(wrong, max_pieces=3)
    assert session.add([3, 4], max_pieces=3) == 1
    assert sorted(texts_of(session.run())) == [0, 1]


@pytest.mark.parametrize(
    "options",
    [{"max_slots": 70000}, {"max_slots": -1}, {"max_batch_tokens": -1}, {"max_cache_tokens": -1}],
)
def test_absurd_sessions_are_refused(model, options):
    with pytest.raises(ValueError, match="max_slots must be between 0 and 65536"):
        Session(model.core, **options)


class Remembering(Generator):
    """Keeps the session that was started last, to see who else does."""

    def start(self, *arguments):
        self.session = super().start(*arguments)
        return self.session

    def n_other_owners(self):
        return sys.getrefcount(self.session) - 2  # ours and the argument


def start_text(generator, config):
    return StringGenerator(byte_tokenizer(), generator).stream_ids([65, 66], config)


def start_pieces(generator, config):
    return generator(ids=[[65, 66]], attention_mask=[[True, True]], config=config)


@pytest.mark.parametrize("start", [start_text, start_pieces])
@pytest.mark.parametrize("how", ["closed", "dropped", "in a cycle"])
def test_an_abandoned_stream_lets_its_session_go(model, start, how):
    generator = Remembering(model)
    stream = start(generator, GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=10**6))
    next(stream)
    assert generator.n_other_owners() > 0
    if how == "closed":
        stream.close()
    elif how == "in a cycle":
        cycle = [stream]
        cycle.append(cycle)
        del cycle
    del stream
    gc.collect()
    assert generator.n_other_owners() == 0
