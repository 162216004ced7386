"""What goes beyond the documented configurations: stop strings, several texts for a prompt,
log-probabilities, and the parts of a configuration that are Python. The byte tokenizer makes texts
and pieces the same thing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import small_models
from byte_tokenizer import EOS_ID, N_PIECES, byte_tokenizer

from curated_transformers.generation import (
    CompoundLogitsTransform,
    CompoundStopCondition,
    DefaultGenerator,
    EndOfSequenceCondition,
    Generation,
    Generator,
    GreedyGeneratorConfig,
    MaxGeneratedPiecesCondition,
    SampleGeneratorConfig,
    StopCondition,
    StringGenerator,
    TemperatureTransform,
    TopKTransform,
    VocabMaskTransform,
)
from curated_transformers.generation.text_stream import StopFinder, TextStream
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.tokenizers.spacing import clean_up_spaces

PROMPTS = ["Once", "a", "two spaces", "x" * 70, "Once upon"]
#: Texts of few different characters come to stop strings early.
FEW = {*range(N_PIECES)} - {*b"ab \n"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    small_models.llama(folder, pieces=N_PIECES, positions=120, spread=4)
    return LlamaCausalLM.from_path(folder)


@pytest.fixture(scope="module")
def generator(model):
    return DefaultGenerator(byte_tokenizer(), model)


def sample(n=30, **options):
    return SampleGeneratorConfig(FEW, EOS_ID, n, temperature=3.0, seed=11, **options)


def cut(text, stops):
    """Up to the stop string that is complete first when one reads on character by character."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


# ---- stop strings ----

STOPS = [["ab"], ["\n"], ["bbb", "ba"], ["aa", "baab"], ["a", "b", " ", "\n"], ["xyz"], ["b\na b"]]


@pytest.mark.parametrize("stops", STOPS, ids=repr)
def test_a_text_ends_before_the_first_stop_string(generator, stops):
    whole = generator(PROMPTS, sample())
    expected = [cut(text, stops) for text in whole]
    assert generator(PROMPTS, sample(stop=stops)) == expected
    for prompt, text in zip(PROMPTS[:1], expected, strict=False):
        assert "".join(generator.stream(prompt, sample(stop=stops))) == text
    if len(stops) == 1:
        assert generator(PROMPTS, sample(stop=stops[0])) == expected


def test_the_stop_strings_of_these_tests_occur(generator):
    whole = generator(PROMPTS, sample())
    ends = [[cut(text, stops) != text for text in whole] for stops in STOPS]
    assert sum(map(any, ends)) >= 5
    assert not all(itertools.chain(*ends))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("stops", [["ab"], ["aab", "bb"], ["abab a"], ["ab", "abb", "b a"]])
def test_a_stream_yields_no_part_of_a_stop_string(seed, stops):
    """Whichever parts the text comes in."""
    rng = np.random.default_rng(seed)
    text = "".join(rng.choice(list("ab "), 60))
    places = np.sort(rng.choice(61, 12))
    finder, shown = StopFinder(stops), ""
    for part in np.split(np.array(list(text)), places):
        shown += finder.push("".join(part))
        assert cut(text, stops).startswith(shown)
    assert shown + finder.finish() == cut(text, stops)
    assert finder.is_found == any(stop in text for stop in stops)


def test_a_stop_string_may_lie_across_half_characters():
    text = "aé日b日é"
    for stop in ("é", "日b", "b日", "aé日b日é"):
        stream, shown = TextStream(byte_tokenizer(), [stop]), ""
        for byte in text.encode():
            shown += stream.push(byte)
            assert cut(text, [stop]).startswith(shown)
        assert stream.is_stopped
        assert shown + stream.finish() == cut(text, [stop])


def test_what_is_held_back_comes_at_the_end():
    stream = TextStream(byte_tokenizer(), ["abc"])
    assert [stream.push(byte) for byte in b"xab"] == ["x", "", ""]
    assert stream.finish() == "ab"
    assert not stream.is_stopped


class SpacedPieces:
    """A tokenizer that removes spaces when it decodes."""

    PIECES = ("x", " n", " '", " t", "n", "'", "t", " ", "s", " .")

    def decode(self, batch):
        return [clean_up_spaces("".join(self.PIECES[i] for i in ids)) for ids in batch]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_parts_of_a_stream_are_its_text_where_spaces_are_removed(length):
    tokenizer = SpacedPieces()
    for ids in itertools.product(range(len(tokenizer.PIECES)), repeat=length):
        stream = TextStream(tokenizer)
        parts = [*map(stream.push, ids), stream.finish()]
        assert ["".join(parts)] == tokenizer.decode([ids])


class CountingGenerator(Generator):
    """Counts the events of the sessions that it starts."""

    def start(self, *arguments):
        session = super().start(*arguments)
        self.n_events = 0
        outer = self

        class Counting:
            is_done = property(lambda self: session.is_done)
            cancel = session.cancel

            def run(self, max_steps):
                events = session.run(max_steps)
                outer.n_events += len(events)
                return events

        return Counting()


def test_a_stopped_text_is_generated_no_further(model):
    inner = CountingGenerator(model)
    generator = StringGenerator(byte_tokenizer(), inner)
    generations = generator.generate_detailed(PROMPTS, sample(stop=["ab", "\n"]))
    assert inner.n_events == sum(len(one.pieces) for one in generations)
    assert {one.finish_reason for one in generations} == {"stop"}
    for one in generations:  # the pieces end with the stop string
        assert bytes(one.pieces).decode().startswith(one.text)
        assert bytes(one.pieces).endswith((b"ab", b"\n"))


# ---- several texts for a prompt ----


def test_several_texts_stand_behind_each_other(generator):
    config = sample(num_return_sequences=3)
    texts = generator(PROMPTS, config)
    assert len(texts) == 15
    for i, prompt in enumerate(PROMPTS):
        repeated = [*PROMPTS[:i] * 3, prompt, prompt, prompt]
        assert generator(repeated, sample())[3 * i :] == texts[3 * i : 3 * i + 3]
    assert len(set(texts[:3])) == 3
    one_by_one = [p for p in PROMPTS for _ in range(3)]
    assert generator(one_by_one, sample()) == texts


def test_several_texts_are_numbered_row_by_row(model):
    config = GreedyGeneratorConfig(None, -1, 2, num_return_sequences=2)
    ids = np.array([[1, 2], [3, 4]])
    steps = list(Generator(model)(ids=ids, attention_mask=ids > 0, config=config))
    texts = {}
    for numbers, pieces in steps:
        for number, piece in zip(numbers.tolist(), pieces.tolist(), strict=True):
            texts.setdefault(number, []).extend(piece)
    assert sorted(texts) == [0, 1, 2, 3]
    assert texts[0] == texts[1] != texts[2] == texts[3]


def test_a_prompt_that_is_refused_has_its_own_number(generator):
    with pytest.raises(ValueError, match="prompt 1: a prompt needs"):
        generator(["a", ""], sample(num_return_sequences=4))


def test_a_stream_and_a_chat_are_of_one_text(generator):
    with pytest.raises(ValueError, match="num_return_sequences must be 1"):
        next(generator.stream("a", sample(num_return_sequences=2)))
    with pytest.raises(ValueError, match="num_return_sequences must be 1"):
        generator.chat([{"role": "user", "content": "a"}], sample(num_return_sequences=2))


# ---- what is known of a text ----


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


@pytest.mark.parametrize("n", [0, 1, 5, 20])
@pytest.mark.parametrize(
    "config", [GreedyGeneratorConfig(None, EOS_ID, 8), sample(8, repetition_penalty=1.5)]
)
def test_logprobs_are_the_models_own(model, generator, config, n):
    """Whatever the configuration does to the logits. The model's are of float32, whose sums of 257
    numbers are good for 1e-5."""
    config = type(config)(**{**vars(config), "logprobs": n})
    for prompt, one in zip(PROMPTS, generator.generate_detailed(PROMPTS, config), strict=True):
        ids = [*prompt.encode(), *one.pieces]
        rows = np.asarray(model([ids]).logits)[0, len(prompt) - 1 : -1]
        expected = np.array([log_softmax(row) for row in rows])
        assert len(one.pieces) == len(one.logprobs) == len(one.top_logprobs)
        chosen = expected[np.arange(len(one.pieces)), one.pieces]
        np.testing.assert_allclose(one.logprobs, chosen, atol=1e-4)
        for row, top in zip(expected, one.top_logprobs, strict=True):
            pieces = [piece for piece, _ in top]
            assert len(set(pieces)) == n
            np.testing.assert_allclose([p for _, p in top], row[pieces], atol=1e-4)
            np.testing.assert_allclose(row[pieces], np.sort(row)[::-1][:n], atol=1e-4)


def test_a_generation_says_why_it_ended(generator):
    (first,) = generator.generate_detailed(["Once"], GreedyGeneratorConfig(None, EOS_ID, 10))
    assert isinstance(first, Generation)
    assert (first.finish_reason, len(first.pieces)) == ("length", 10)
    assert (first.logprobs, first.top_logprobs) == (None, None)
    assert bytes(first.pieces).decode(errors="replace") == first.text
    end = first.pieces[4]
    (second,) = generator.generate_detailed(["Once"], GreedyGeneratorConfig(None, end, 10))
    assert second.finish_reason == "eos"
    assert second.pieces == first.pieces[: first.pieces.index(end)]


# ---- processors ----


def test_a_processor_sees_each_text_and_changes_its_logits(model, generator):
    seen = []

    def next_letter(ids, logits):
        assert (ids.dtype, logits.dtype, logits.shape) == ("int32", "float32", (N_PIECES,))
        expected = np.asarray(model([ids]).logits)[0, -1]
        np.testing.assert_allclose(logits, expected, atol=1e-4)  # with and without a cache
        seen.append(ids.tolist())
        logits[:] = -np.inf
        logits[ids[-1] + 1] = 0

    config = GreedyGeneratorConfig(None, EOS_ID, 3, logits_processor=next_letter)
    assert generator(["xa", "C"], config) == ["bcd", "DEF"]
    assert list(b"xabc") in seen
    assert len(seen) == 6
    assert "".join(generator.stream("1", config)) == "234"


def test_a_processor_may_return_other_logits(generator):
    def only_a(ids, logits):
        return np.where(np.arange(N_PIECES) == ord("a"), 0.0, -np.inf)

    config = SampleGeneratorConfig({ord("b")}, EOS_ID, 3, logits_processor=only_a)
    assert generator(["x"], config) == ["aaa"]


def test_a_processor_comes_before_everything_else(generator):
    def rank(ids, logits):
        logits[:] = 0
        logits[list(b"abc")] = [9, 8, 7]

    config = GreedyGeneratorConfig({ord("a")}, EOS_ID, 3, presence_penalty=5, logits_processor=rank)
    assert generator(["x"], config) == ["bcb"]  # 8 7, then 3 7, then 3 2


def test_a_processor_may_be_a_transform(generator):
    letters = CompoundLogitsTransform([VocabMaskTransform({*range(N_PIECES)} - {*b"xyz"})])
    config = sample(20, logits_processor=letters)
    config.masked_pieces = None
    (text,) = generator(["x"], config)
    assert set(text) == set("xyz")
    config.masked_pieces = {*range(N_PIECES)} - {*b"xyz"}
    config.logits_processor = None
    assert generator(["x"], config) == [text]  # the same distribution, the same draws


@pytest.mark.parametrize(
    ("processor", "error", "message"),
    [
        (lambda ids, logits: 1 / 0, ZeroDivisionError, "division"),
        (lambda ids, logits: np.zeros(3), ValueError, r"return \[257\] logits, returned \[3\]"),
        (lambda ids, logits: logits.fill(np.nan), ValueError, "no piece can be chosen"),
        (lambda ids, logits: logits.resize(5, refcheck=False), ValueError, "keep its shape"),
    ],
)
def test_an_error_in_a_processor_reaches_the_caller(generator, processor, error, message):
    config = GreedyGeneratorConfig(None, EOS_ID, 3, logits_processor=processor)
    with pytest.raises(error, match=message):
        generator(["x", "y"], config)
    assert len(generator(["x"], GreedyGeneratorConfig(None, EOS_ID, 3))) == 1  # still usable


def test_an_array_of_a_processor_may_be_kept(generator):
    kept = []

    def keep(ids, logits):
        kept.append((ids, logits))

    generator(["x"], GreedyGeneratorConfig(None, EOS_ID, 5, logits_processor=keep))
    assert [ids.shape for ids, _ in kept] == [(n,) for n in range(1, 6)]
    assert len({logits.tobytes() for _, logits in kept}) > 1


# ---- conditions ----


def test_a_function_ends_texts(generator):
    whole = generator(PROMPTS, sample())
    seen = set()

    def two_a(pieces):
        seen.add(tuple(pieces))
        return pieces.count(ord("a")) == 2

    generations = generator.generate_detailed(PROMPTS, sample(stop_when=two_a))
    for text, one in zip(whole, generations, strict=True):
        place = [i for i, letter in enumerate(text) if letter == "a"]
        end = place[1] + 1 if len(place) > 1 else len(text)
        assert one.text == text[:end]  # with the piece that ended it
        assert one.finish_reason == ("stop" if len(place) > 1 else "length")
        assert tuple(one.pieces) in seen
    assert {one.finish_reason for one in generations} >= {"stop"}


class Excluding(StopCondition):
    """Ends a text at a letter, which is not emitted; knows the prompt."""

    def __init__(self, letter):
        self.letter = letter
        self.prompts = {}

    def update_completed(self, *, state, completed_exclude, completed_include):
        assert completed_exclude.shape == completed_include.shape == (1, 1)
        self.prompts[state.seq_ids.item()] = bytes(state.prompt_ids[0].tolist()).decode()
        completed_exclude |= state.last_step_ids == ord(self.letter)


def test_a_condition_may_keep_the_last_piece_back(generator):
    whole = generator(PROMPTS, sample())
    condition = Excluding("b")
    texts = generator(PROMPTS, sample(stop_when=condition))
    assert texts == [cut(text, ["b"]) for text in whole]
    assert texts != whole
    assert condition.prompts == dict(enumerate(PROMPTS))
    parts = generator.stream(PROMPTS[0], sample(stop_when=Excluding("b")))
    assert "".join(parts) == texts[0]


def test_conditions_and_end_pieces_are_joined_by_or(generator):
    """At the maximum length too: the piece that the condition excludes is not emitted."""
    (whole,) = generator(PROMPTS[:1], sample())
    place = whole.index("b")
    config = sample(place + 1, stop_when=Excluding("b"))
    assert generator(PROMPTS[:1], config) == [whole[:place]]
    config = sample(place, stop_when=Excluding("b"))
    assert generator(PROMPTS[:1], config) == [whole[:place]]
    config = sample(stop_when=CompoundStopCondition([Excluding("x"), Excluding("b")]))
    assert generator(PROMPTS[:1], config) == [whole[:place]]


@dataclass
class OwnParts(GreedyGeneratorConfig):
    """What users of the original library write: methods that return other parts."""

    letter: str = "a"

    def logits_transform(self):
        others = VocabMaskTransform({*range(N_PIECES)} - {*b"uvw"})
        return CompoundLogitsTransform([others, TemperatureTransform(0.5)])

    def stop_condition(self):
        return CompoundStopCondition(
            [EndOfSequenceCondition(ord("v")), MaxGeneratedPiecesCondition(9)]
        )


@dataclass
class OwnSampling(SampleGeneratorConfig):
    def logits_transform(self):
        return CompoundLogitsTransform([super().logits_transform(), TopKTransform(1)])


def test_subclasses_that_return_other_parts_are_obeyed(generator):
    for text in generator(PROMPTS, OwnParts(None, EOS_ID, 2)):
        assert set(text) <= set("uw")
        assert len(text) <= 9
    whole = generator(PROMPTS, GreedyGeneratorConfig({*range(N_PIECES)} - {*b"uvw"}, EOS_ID, 9))
    assert generator(PROMPTS, OwnParts(None, EOS_ID, 2)) == [cut(text, ["v"]) for text in whole]
    greedy = generator(PROMPTS, GreedyGeneratorConfig(None, EOS_ID, 20))
    sampled = OwnSampling(None, EOS_ID, 20, temperature=5.0, top_k=9, seed=1)
    assert generator(PROMPTS, sampled) == greedy
