"""Continuous batching: who else runs, in which chunks and on whose pages, changes no result."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_models
from byte_tokenizer import EOS_ID, byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from curated_transformers import get_num_threads, set_num_threads
from curated_transformers._core import Session
from curated_transformers.generation import DefaultGenerator, GreedyGeneratorConfig
from curated_transformers.models.gpt_neox import GPTNeoXCausalLM
from curated_transformers.models.llama import LlamaCausalLM

PAGE = 64  # positions in a page of the cache, csrc/model/kv_cache.h
SPAN = 512  # keys that attention takes together, csrc/cpu/attention.c
N_PIECES = 257  # of byte_tokenizer
#: What several prompts begin with: two pages and a bit.
BEGINNING = np.random.default_rng(3).integers(0, N_PIECES, 2 * PAGE + 9).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    # The logits' spread makes many pieces likely: a draw shows the smallest difference.
    return LlamaCausalLM.from_path(
        small_models.llama(tmp_path_factory.mktemp("llama"), pieces=N_PIECES)
    )


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    folder = small_models.gpt_neox(tmp_path_factory.mktemp("neox"), positions=4096, pieces=N_PIECES)
    return GPTNeoXCausalLM.from_path(folder)


def add(session, row, prompt, n, *, drawn):
    return session.add(prompt, temperature=1.0 if drawn else 0.0, seed=9, row=row, max_pieces=n)


def texts_of(events):
    texts = {}
    for number, piece, _ in events:
        texts.setdefault(number, []).append(piece)
    return texts


def alone(model, row, prompt, n, *, drawn):
    session = Session(model.core)
    add(session, row, prompt, n, drawn=drawn)
    return texts_of(session.run())[0]


# ---- results ----


@pytest.mark.parametrize("name", ["model", "neox"])
@pytest.mark.parametrize(
    "splits", [[1] * 700, [700], [3, 1, 60, 64, 1, 571], [SPAN - 1, 1, 1, 187], [9] * 77 + [7]]
)
def test_logits_have_the_same_bits_in_whatever_chunks_they_are_computed(name, splits, request):
    model = request.getfixturevalue(name)
    ids = np.random.default_rng(1).integers(0, N_PIECES, (1, 700))
    whole = np.asarray(model(ids).logits)
    parts, cache, first = [], None, 0
    for n in splits:
        output = model(ids[:, first : first + n], cache=cache, store_cache=True)
        parts.append(np.asarray(output.logits))
        cache, first = output.cache, first + n
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_logits_have_the_same_bits_in_whatever_company_they_are_computed(model):
    rng = np.random.default_rng(2)
    lengths = [1, 5, 70, 130, 2, 64]
    ids = rng.integers(0, N_PIECES, (6, max(lengths)))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    together = np.asarray(model(ids, attention_mask=mask).logits)
    for row, n in enumerate(lengths):
        np.testing.assert_array_equal(
            together[row, :n], np.asarray(model(ids[row : row + 1, :n]).logits)[0]
        )


PROMPTS = st.builds(
    lambda shared, own: BEGINNING[:shared] + own or [7],
    st.sampled_from([0, 0, 3, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 9]),
    st.lists(st.integers(0, N_PIECES - 1), max_size=12),
)
JOBS = st.lists(st.tuples(PROMPTS, st.integers(1, 80), st.booleans()), min_size=1, max_size=12)


@given(
    jobs=JOBS,
    max_slots=st.integers(0, 6),
    max_batch_tokens=st.sampled_from([0, 1, 2, 7, 63, 64, 65, 200]),
    max_cache_tokens=st.sampled_from([0, 1, 3 * PAGE, 5 * PAGE, 9 * PAGE]),
    joins=st.lists(st.integers(0, 9), max_size=12),
    leaves=st.lists(st.integers(0, 11), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_no_schedule_changes_a_text(
    model, jobs, max_slots, max_batch_tokens, max_cache_tokens, joins, leaves
):
    """Prompts that come while others run, sequences that are cancelled, few slots, tokens and
    pages."""
    session = Session(
        model.core,
        max_slots=max_slots,
        max_batch_tokens=max_batch_tokens,
        max_cache_tokens=max_cache_tokens,
    )
    events = []
    for row, (prompt, n, drawn) in enumerate(jobs):
        assert add(session, row, prompt, n, drawn=drawn) == row
        events += session.run(joins[row] if row < len(joins) else 0)
    for row in leaves:
        session.cancel(row)
        events += session.run(3)
    events += session.run()
    assert session.is_done
    texts = texts_of(events)
    for row, (prompt, n, drawn) in enumerate(jobs):
        expected = alone(model, row, prompt, n, drawn=drawn)
        text = texts.get(row, [])
        assert text == (expected[: len(text)] if row in leaves else expected)


def test_a_thousand_prompts_give_the_texts_of_each_alone(model):
    rng = np.random.default_rng(11)
    lengths = np.minimum(rng.lognormal(3, 1, 1000).astype(int) + 1, 600)
    prompts = [
        BEGINNING[: 9 * int(rng.integers(0, 16))] + rng.integers(0, N_PIECES, n).tolist()
        for n in lengths
    ]
    limits = rng.integers(1, 40, 1000).tolist()
    session = Session(model.core, max_cache_tokens=200 * PAGE)
    for row in range(1000):
        add(session, row, prompts[row], limits[row], drawn=row % 2 == 1)
    texts = texts_of(session.run())
    for row in range(1000):
        assert texts[row] == alone(model, row, prompts[row], limits[row], drawn=row % 2 == 1), row


def test_the_number_of_threads_changes_no_text(model):
    before = get_num_threads()
    texts = []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            session = Session(model.core)
            for row in range(20):
                add(session, row, BEGINNING[: 5 + 6 * row], 30, drawn=row % 2 == 1)
            texts.append(texts_of(session.run()))
    finally:
        set_num_threads(before)
    assert texts[1] == texts[0]
    assert texts[2] == texts[0]


def test_two_generators_in_two_threads_do_not_disturb_each_other(model):
    barrier = threading.Barrier(2)

    def run(rows):
        session = Session(model.core, max_batch_tokens=40)
        for row in rows:
            add(session, row, BEGINNING[: 1 + 5 * row], 25, drawn=row % 2 == 1)
        barrier.wait()
        return texts_of(session.run())

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [range(15), range(15, 30)]))
    for rows, texts in zip([range(15), range(15, 30)], results, strict=True):
        for number, row in enumerate(rows):
            expected = alone(model, row, BEGINNING[: 1 + 5 * row], 25, drawn=row % 2 == 1)
            assert texts[number] == expected


# ---- schedule ----


def test_a_long_prompt_does_not_hold_up_who_decodes(model):
    session = Session(model.core, max_batch_tokens=32)
    session.add([1, 2, 3], max_pieces=60)
    session.run(1)
    session.add(np.arange(900) % N_PIECES, max_pieces=1)
    for _ in range(28):  # 900 pieces in chunks of 31
        assert [number for number, _, _ in session.run(1)] == [0]
    assert sorted(number for number, _, _ in session.run(2)) == [0, 0, 1]


def test_equal_prompts_are_computed_once(model):
    """Steps tell: with room for one prompt in a step, each further one would take a step more."""
    prompt = BEGINNING[: 2 * PAGE + 2]
    session = Session(model.core, max_batch_tokens=len(prompt))
    for row in range(10):
        session.add(prompt, max_pieces=1, row=row)
    events = session.run(1) + session.run(1)
    assert sorted(number for number, _, _ in events) == list(range(10))
    assert len({piece for _, piece, _ in events}) == 1


def test_cancelling_frees_the_pages(model):
    """Pages for one long sequence: the next one can run only when the first has gone."""
    session = Session(model.core, max_cache_tokens=5 * PAGE)
    for _ in range(3):
        first = session.add(np.arange(5 * PAGE - 1) % N_PIECES, max_pieces=1000)
        session.run(1)
        second = session.add(np.arange(4 * PAGE)[::-1] % N_PIECES, max_pieces=2)
        assert {number for number, _, _ in session.run(3)} == {first}
        session.cancel(first)
        assert [number for number, _, _ in session.run()] == [second, second]


# ---- interruption ----


def test_what_came_before_an_interruption_is_not_lost(model):
    def interrupt(*_):
        raise KeyboardInterrupt

    session = Session(model.core)
    add(session, 0, [1, 2], 10**6, drawn=False)
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        # Again each second: what a handler raises is lost when it runs in a callback of the garbage
        # collector, and hypothesis has one.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 1)
        with pytest.raises(KeyboardInterrupt):
            session.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    events = session.run(0)
    n_before = len(events)
    events += session.run(3)
    assert len(events) == n_before + 3
    assert texts_of(events)[0] == alone(model, 0, [1, 2], len(events), drawn=False)


@pytest.mark.parametrize("options", [{}, {"max_batch_tokens": 3}, {"max_cache_tokens": PAGE}])
def test_a_generators_options_change_no_text(model, options):
    prompts = ["one", "and two " * 12, "and two " * 12 + "three"]
    config = GreedyGeneratorConfig(eos_id=EOS_ID, max_generated_pieces=20)
    expected = [
        DefaultGenerator(byte_tokenizer(), model)([prompt], config)[0] for prompt in prompts
    ]
    assert DefaultGenerator(byte_tokenizer(), model, **options)(prompts, config) == expected


def test_absurd_options_of_a_generator_are_refused(model):
    generator = DefaultGenerator(byte_tokenizer(), model, max_batch_tokens=-1)
    with pytest.raises(ValueError, match="max_batch_tokens"):
        generator(["a"], GreedyGeneratorConfig(eos_id=EOS_ID, max_generated_pieces=2))
