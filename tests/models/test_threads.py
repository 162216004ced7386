"""One model called from several threads."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small_models

from curated_transformers import get_num_threads, set_num_threads
from curated_transformers._core import Session
from curated_transformers.generation import Generator, SampleGeneratorConfig
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM

WORKERS = 4
RNG = np.random.default_rng(8)
#: Of several lengths, so that workspaces and the rotary table grow while others read them.
BATCHES = [RNG.integers(0, 50, (1 + i % 3, 1 + 37 * i % 90)) for i in range(24)]


@pytest.fixture
def model(tmp_path):
    return LlamaCausalLM.from_path(small_models.llama(tmp_path))


def in_threads(call, arguments):
    """Calls that all begin at the same time, as far as a barrier can do that."""
    barrier = threading.Barrier(WORKERS)

    def work(part):
        barrier.wait()
        return [call(argument) for argument in part]

    with ThreadPoolExecutor(WORKERS) as pool:
        parts = list(pool.map(work, [arguments[i::WORKERS] for i in range(WORKERS)]))
    results = [None] * len(arguments)
    for i, part in enumerate(parts):
        results[i::WORKERS] = part
    return results


def test_forward_calls_at_once_give_what_they_give_alone(model):
    def call(ids):
        return np.asarray(model(ids).logits)

    for result, ids in zip(in_threads(call, BATCHES), BATCHES, strict=True):
        np.testing.assert_array_equal(result, call(ids))


def test_a_fresh_model_may_be_called_first_from_many_threads(tmp_path):
    """What is made at the first use (packed weights, primitives, tables) is made once."""
    folder = small_models.bert(tmp_path, positions=128)
    expected = [
        np.asarray(BERTEncoder.from_path(folder)(ids).last_hidden_layer_state) for ids in BATCHES
    ]
    encoder = BERTEncoder.from_path(folder)
    results = in_threads(lambda ids: np.asarray(encoder(ids).last_hidden_layer_state), BATCHES)
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, right)


def test_one_cache_is_continued_by_many_threads(model):
    """All of them want to write to the same last page."""
    prompt = RNG.integers(0, 50, (2, 70))
    cache = model(prompt, store_cache=True).cache
    pieces = [np.array([[i], [i + 1]]) for i in range(40)]

    def call(more):
        return np.asarray(model(more, cache=cache).logits)

    alone = [np.asarray(model(np.c_[prompt, more]).logits)[:, -1:] for more in pieces]
    for result, right in zip(in_threads(call, pieces), alone, strict=True):
        # f32 sums in another order: a few roundings of 6e-8 at values of about 1 to 5
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-5)


def test_generators_over_one_model_do_not_disturb_each_other(model):
    generator = Generator(model)

    def call(seed):
        ids = np.arange(seed + 1)[None] % 50
        config = SampleGeneratorConfig(eos_id=-1, max_generated_pieces=20, seed=seed)
        steps = generator(ids=ids, attention_mask=np.ones_like(ids, dtype=bool), config=config)
        return [pieces.item() for _, pieces in steps]

    seeds = list(range(16))
    assert in_threads(call, seeds) == [call(seed) for seed in seeds]


def test_other_threads_run_during_a_call(model):
    """With a switch interval of hours a thread runs only when the GIL is let go of."""
    ids = RNG.integers(0, 50, (2, 60))
    start, ran = threading.Event(), threading.Event()

    def other():
        start.wait()
        ran.set()

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10_000)
    try:
        start.set()
        for _ in range(2000):  # the system decides when it wakes the other thread
            model.core.forward(ids, keep="none")  # without reading results, which lets go, too
            if ran.is_set():
                break
        progressed = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert progressed


def test_a_session_in_use_says_so(model):
    session = Session(model.core)
    refused, started, stop = [], threading.Event(), threading.Event()

    def intrude():
        started.wait()
        while not refused and not stop.is_set():
            try:
                session.cancel(99)
            except RuntimeError as error:
                refused.append(str(error))

    thread = threading.Thread(target=intrude)
    thread.start()
    n_events = 0
    for _ in range(200):  # the system decides when it wakes the other thread
        session.add([1, 2], max_pieces=100)
        started.set()
        while not session.is_done:
            try:
                n_events += len(session.run())
            except RuntimeError:  # this thread may be the one that came second
                continue
        if refused:
            break
    stop.set()
    thread.join()
    assert refused == ["this session is in use by another thread"]
    assert n_events % 100 == 0


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 3), (3, 80)])
def test_the_number_of_threads_changes_no_result(model, batch, length):
    """Our own kernels give the same bits; a library that multiplies many rows may add up in
    another order, by a few roundings of 6e-8 at values of about 1 to 5."""
    before = get_num_threads()
    ids = RNG.integers(0, 50, (batch, length))
    results = []
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            assert get_num_threads() == n
            results.append(np.asarray(model(ids).logits))
    finally:
        set_num_threads(before)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if batch * length > 16 else {"rtol": 0, "atol": 0}
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], **tolerance)


@pytest.mark.parametrize(("n", "told"), [(0, 0), (-1, -1), (1025, 1025), (2**40, 2**31 - 1)])
def test_an_absurd_number_of_threads_is_refused(n, told):
    with pytest.raises(ValueError, match=f"between 1 and 1024, was: {told}$"):
        set_num_threads(n)
