"""Requests of asyncio tasks in one batch: their texts are those of the generator, whatever else
happens in the batch."""

from __future__ import annotations

import asyncio
import gc
import threading
from types import SimpleNamespace

import pytest
import small_models
from byte_tokenizer import EOS_ID, N_PIECES, byte_tokenizer

from curated_transformers import _core
from curated_transformers.generation import (
    AsyncTextGenerator,
    DefaultGenerator,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
)
from curated_transformers.generation import generator as generator_module
from curated_transformers.models.llama import LlamaCausalLM

POSITIONS = 4000
PROMPTS = ["Once upon a time", "a", "Grüße, 世界! 👩‍🚀", "  two  spaces ", "x" * 300] * 4
ENDLESS = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=0)
EVERYTHING = set(range(N_PIECES))


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    small_models.llama(folder, pieces=N_PIECES, positions=POSITIONS, spread=4)
    return DefaultGenerator(byte_tokenizer(), LlamaCausalLM.from_path(folder))


@pytest.fixture
def sessions(monkeypatch):
    """The sessions that are made, with the steps and additions that they saw."""
    made = []

    class Recording:
        def __init__(self, *arguments, **options):
            self.inner = _core.Session(*arguments, **options)
            self.events = []
            made.append(self)

        def add(self, *arguments, **options):
            number = self.inner.add(*arguments, **options)
            self.events.append(("add", number))
            return number

        def cancel(self, number):
            self.events.append(("cancel", number))
            self.inner.cancel(number)

        @property
        def is_done(self):
            return self.inner.is_done

        def run(self, steps=-1):
            events = self.inner.run(steps)
            self.events.append(("step", {event[0] for event in events}))
            return events

    monkeypatch.setattr(generator_module, "_core", SimpleNamespace(Session=Recording))
    return made


def configs():
    for i, _ in enumerate(PROMPTS):
        n = 5 + 7 * i % 31
        if i % 3:
            yield SampleGeneratorConfig(max_generated_pieces=n, temperature=0.9, top_k=20, seed=i)
        else:
            yield GreedyGeneratorConfig(max_generated_pieces=n)


async def collected(stream):
    return [part async for part in stream]


def run(generator, use):
    """Runs ``use(texts)`` to its end in an event loop of its own, and closes."""

    async def whole():
        async with AsyncTextGenerator(generator) as texts:
            return await use(texts)

    return asyncio.run(whole())


def test_many_tasks_get_the_texts_of_the_generator(generator):
    wanted = list(zip(PROMPTS, configs(), strict=True))
    expected = [generator([prompt], config)[0] for prompt, config in wanted]

    async def use(texts):
        whole = asyncio.gather(*(texts.generate(*one) for one in wanted))
        parts = asyncio.gather(*(collected(texts.stream(*one)) for one in wanted))
        return await whole, await parts

    whole, parts = run(generator, use)
    assert whole == expected
    assert ["".join(one) for one in parts] == expected
    assert max(map(len, parts)) > 1
    assert all(all(part for part in one) for one in parts)


def test_requests_share_steps(generator, sessions):
    async def use(texts):
        stream = texts.stream("a", ENDLESS)
        await anext(stream)
        # Others come and go while it runs.
        for prompt in PROMPTS[:3]:
            await texts.generate(prompt, GreedyGeneratorConfig(max_generated_pieces=4))
        await stream.aclose()

    run(generator, use)
    (session,) = sessions
    shared = [numbers for kind, numbers in session.events if kind == "step" and len(numbers) > 1]
    assert {number for numbers in shared for number in numbers} == {0, 1, 2, 3}
    assert all(0 in numbers for numbers in shared)


def test_chats_are_answered(generator):
    messages = [{"role": "user", "content": "Hi"}]
    config = GreedyGeneratorConfig(max_generated_pieces=9)

    async def use(texts):
        return await texts.generate(messages, config), await collected(
            texts.stream(messages, config)
        )

    whole, parts = run(generator, use)
    assert whole == "".join(parts) == generator.chat(messages, config)

    async def with_options(texts):
        return await texts.generate(messages, config, template_options=options)

    options = {"eos_token": "!"}
    whole = run(generator, with_options)
    assert whole == generator.chat(messages, config, template_options=options)


def test_a_text_of_no_pieces_is_empty(generator):
    first = generator(["a"], GreedyGeneratorConfig(max_generated_pieces=1))[0]
    config = GreedyGeneratorConfig(eos_id=ord(first), max_generated_pieces=5)

    async def use(texts):
        return await texts.generate("a", config), await collected(texts.stream("a", config))

    assert run(generator, use) == ("", [])


@pytest.mark.parametrize("how", ["cancelled", "left", "dropped"])
def test_a_task_that_goes_away_frees_its_place(generator, sessions, how):
    async def use(texts):
        stream = texts.stream("a", ENDLESS)
        if how == "cancelled":
            task = asyncio.create_task(texts.generate("a", ENDLESS))
            while not sessions or ("step", {0}) not in sessions[0].events:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "left":
            async for _ in stream:
                break
            await stream.aclose()
        else:
            await anext(stream)
            del stream
            gc.collect()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        # Messages are taken in order: when this one has its answer, the other was cancelled.
        text = await texts.generate("b", GreedyGeneratorConfig(max_generated_pieces=2))
        return text, sessions[0].inner.is_done

    text, is_done = run(generator, use)
    assert text == generator(["b"], GreedyGeneratorConfig(max_generated_pieces=2))[0]
    assert is_done
    assert ("cancel", 0) in sessions[0].events


def test_a_task_that_is_cancelled_before_its_first_step(generator):
    async def use(texts):
        tasks = [asyncio.create_task(texts.generate(prompt, ENDLESS)) for prompt in PROMPTS]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        return await texts.generate("b", GreedyGeneratorConfig(max_generated_pieces=2))

    expected = generator(["b"], GreedyGeneratorConfig(max_generated_pieces=2))[0]
    assert run(generator, use) == expected


WRONG = [
    ("", GreedyGeneratorConfig(), ValueError, "at least one piece"),
    ("x" * (POSITIONS + 1), GreedyGeneratorConfig(), ValueError, "longer than the 4000 positions"),
    ("a", SampleGeneratorConfig(temperature=0), ValueError, "temperature must be"),
    ("a", GreedyGeneratorConfig({N_PIECES}), ValueError, "must be < 257"),
    ([{"content": "x"}], GreedyGeneratorConfig(), ValueError, "message"),
    (None, GreedyGeneratorConfig(), ValueError, "is a list of messages"),
    # Refused before the first step and in the middle of one:
    ("a", GreedyGeneratorConfig(EVERYTHING), ValueError, "no piece can be chosen"),
    ("a", SampleGeneratorConfig(EVERYTHING, seed=1), ValueError, "no piece can be chosen"),
]


@pytest.mark.parametrize(("prompt", "config", "error", "message"), WRONG)
def test_an_error_goes_to_the_request_that_caused_it(generator, prompt, config, error, message):
    others = list(zip(PROMPTS, configs(), strict=True))
    expected = [generator([prompt], config)[0] for prompt, config in others]

    async def use(texts):
        tasks = [asyncio.create_task(texts.generate(*one)) for one in others[::2]]
        tasks += [asyncio.create_task(collected(texts.stream(*one))) for one in others[1::2]]
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(error, match=message):
                await texts.generate(prompt, config)
            with pytest.raises(error, match=message):
                await collected(texts.stream(prompt, config))
        return await asyncio.gather(*tasks)

    results = run(generator, use)
    n = len(others[::2])
    assert results[:n] == expected[::2]
    assert ["".join(parts) for parts in results[n:]] == expected[1::2]


def test_after_a_failed_step_requests_run_together_again(generator, sessions):
    async def use(texts):
        wanted = zip(PROMPTS, configs(), strict=True)
        good = [asyncio.create_task(texts.generate(*one)) for one in wanted]
        with pytest.raises(ValueError, match="no piece"):
            await texts.generate("a", GreedyGeneratorConfig(EVERYTHING))
        await asyncio.gather(*good)
        sessions[0].events.clear()
        config = GreedyGeneratorConfig(eos_id=-1, max_generated_pieces=30)
        await asyncio.gather(*(texts.generate(prompt, config) for prompt in PROMPTS))

    run(generator, use)
    assert max(len(numbers) for kind, numbers in sessions[0].events if kind == "step") > 1


def test_closing_ends_what_runs_and_refuses_what_comes(generator):
    async def use():
        texts = AsyncTextGenerator(generator)
        stream = texts.stream("a", ENDLESS)
        await anext(stream)
        waiting = asyncio.create_task(texts.generate("b", ENDLESS))
        await asyncio.sleep(0)
        await texts.close()
        with pytest.raises(RuntimeError, match="was closed"):
            await waiting
        with pytest.raises(RuntimeError, match="was closed"):
            await collected(stream)
        with pytest.raises(RuntimeError, match="was closed"):
            await texts.generate("a", ENDLESS)
        await texts.close()
        return texts

    texts = asyncio.run(use())
    assert not texts._thread.is_alive()


def test_one_that_was_never_used_starts_no_thread(generator):
    async def use(texts):
        return texts

    n_threads = threading.active_count()
    assert run(generator, use)._thread is None
    assert threading.active_count() == n_threads


def test_dropping_it_ends_the_thread(generator):
    async def use():
        texts = AsyncTextGenerator(generator)
        await texts.generate("a", GreedyGeneratorConfig(max_generated_pieces=1))
        return texts._thread

    thread = asyncio.run(use())
    gc.collect()
    assert not thread.is_alive()


def test_a_loop_that_ended_is_no_trouble_for_another(generator):
    texts = AsyncTextGenerator(generator)

    async def abandon():
        await anext(texts.stream("a", ENDLESS))

    async def use():
        return await texts.generate("a", GreedyGeneratorConfig(max_generated_pieces=3))

    asyncio.run(abandon())
    expected = generator(["a"], GreedyGeneratorConfig(max_generated_pieces=3))[0]
    assert asyncio.run(use()) == expected
    asyncio.run(texts.close())


def test_loops_in_several_threads_share_it(generator):
    texts = AsyncTextGenerator(generator)
    wanted = list(zip(PROMPTS, configs(), strict=True))
    results = {}

    def serve(name):
        async def use():
            return await asyncio.gather(*(texts.generate(*one) for one in wanted))

        results[name] = asyncio.run(use())

    threads = [threading.Thread(target=serve, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(texts.close())
    expected = [generator([prompt], config)[0] for prompt, config in wanted]
    assert results == dict.fromkeys(range(3), expected)


def test_without_a_seed_each_request_draws_anew(generator):
    config = SampleGeneratorConfig(eos_id=EOS_ID, max_generated_pieces=40, temperature=2.0)

    async def use(texts):
        return await asyncio.gather(*(texts.generate("a", config) for _ in range(4)))

    assert len(set(run(generator, use))) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_a_request_and_frees_its_place(generator, sessions, stream):
    config = SampleGeneratorConfig(
        EVERYTHING - {*b"ab"}, EOS_ID, 300, temperature=3.0, seed=3, stop=["aab", "bba"]
    )

    async def use(texts):
        if stream:
            parts = await asyncio.gather(*(collected(texts.stream(p, config)) for p in PROMPTS[:3]))
            return ["".join(one) for one in parts]
        return await asyncio.gather(*(texts.generate(p, config) for p in PROMPTS[:3]))

    texts = run(generator, use)
    assert texts == [generator([prompt], config)[0] for prompt in PROMPTS[:3]]
    assert all(len(text) < 300 for text in texts)
    steps = [numbers for kind, numbers in sessions[0].events if kind == "step"]
    assert len(steps) < 300


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 2},
        {"logits_processor": lambda ids, logits: None},
        {"stop_when": lambda pieces: True},
    ],
    ids=list,
)
def test_what_cannot_share_a_batch_is_refused(generator, options):
    async def use(texts):
        with pytest.raises(ValueError, match="requests that share a batch"):
            await texts.generate("a", GreedyGeneratorConfig(None, EOS_ID, 3, **options))
        return await texts.generate("a", GreedyGeneratorConfig(None, EOS_ID, 3))

    assert run(generator, use) == generator(["a"], GreedyGeneratorConfig(None, EOS_ID, 3))[0]
