"""Generation on text: prompts, streams, chats. The tokenizer has a piece for each byte, so what a
text must be is known without it."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
from byte_tokenizer import EOS_ID, N_PIECES, byte_tokenizer

from curated_transformers.generation import (
    DefaultGenerator,
    Generator,
    GreedyGeneratorConfig,
    SampleGeneratorConfig,
    StringGenerator,
)
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.tokenizers import InputChunks, TextChunk

POSITIONS = 120
PROMPTS = ["Once upon a time", "a", "Grüße, 世界! 👩‍🚀", "  two  spaces "]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    small_models.llama(folder, pieces=N_PIECES, positions=POSITIONS, spread=4)
    return LlamaCausalLM.from_path(folder)


@pytest.fixture(scope="module")
def generator(model):
    return DefaultGenerator(byte_tokenizer(), model)


def greedy(n=12, eos_id=None):
    return GreedyGeneratorConfig(eos_id=eos_id, max_generated_pieces=n)


def bytes_of(model, prompt, config):
    ids = np.array([list(prompt.encode())])
    steps = Generator(model)(ids=ids, attention_mask=np.ones_like(ids, dtype=bool), config=config)
    return bytes(pieces.item() for _, pieces in steps if pieces.item() < 256)


def test_texts_are_the_decoded_pieces_of_each_prompt(model, generator):
    config = greedy(20, EOS_ID)
    expected = [bytes_of(model, p, config).decode(errors="replace") for p in PROMPTS]
    assert generator(PROMPTS, config) == expected
    assert generator.generate(PROMPTS, config=config, progress=True) == expected
    assert [generator([prompt], config)[0] for prompt in PROMPTS] == expected


def test_chunks_are_prompts_too(model, generator):
    prompts = [InputChunks([TextChunk("Once upon "), TextChunk("a time")])]
    inner = StringGenerator(byte_tokenizer(), Generator(model))
    config = greedy(8, EOS_ID)
    assert inner(prompts, config) == generator(PROMPTS[:1], config)


def test_no_prompts_give_no_texts(generator):
    assert generator([], greedy()) == []


def test_many_more_prompts_than_slots(generator):
    prompts = [f"{i} bottles" for i in range(100)]
    texts = generator(prompts, greedy(6))
    assert texts[::33] == [generator([p], greedy(6))[0] for p in prompts[::33]]
    assert len(texts) == 100


def test_an_empty_prompt_is_named(generator):
    with pytest.raises(ValueError, match="prompt 1: a prompt needs at least one piece"):
        generator(["a", ""], greedy())


def test_the_longest_prompt_that_fits_and_one_that_does_not(generator):
    assert len(generator(["x" * POSITIONS], greedy(5))) == 1
    with pytest.raises(ValueError, match=r"prompt 1: .* 121 pieces is longer than the 120 pos"):
        generator(["a", "x" * (POSITIONS + 1)], greedy())


def test_a_single_string_is_no_list_of_prompts(generator):
    with pytest.raises(TypeError, match="list of strings"):
        generator("text", greedy())


@pytest.mark.parametrize("prompts", [[5], ["a", None], [b"a"], [[{"role": "user"}]]])
def test_prompts_that_are_no_strings_are_named(generator, prompts):
    with pytest.raises(TypeError, match=r"prompts must be strings, got (int|NoneType|bytes|list)"):
        generator(prompts, greedy())
    with pytest.raises(TypeError, match="prompts must be strings"):
        generator.generate_detailed(prompts, greedy())


@pytest.mark.parametrize("config", [None, {"temperature": 1}, GreedyGeneratorConfig])
def test_what_is_no_configuration_is_named(generator, config):
    messages = [{"role": "user", "content": "a"}]
    for call in (generator, generator.generate_detailed, generator.stream):
        with pytest.raises(ValueError, match="Unknown generator configuration"):
            call(["a"], config)
    with pytest.raises(ValueError, match="Unknown generator configuration"):
        generator.chat(messages, config)


def test_the_default_config_fills_what_is_open(model):
    defaults = SampleGeneratorConfig(eos_id=EOS_ID, max_generated_pieces=3, temperature=9.0)
    generator = DefaultGenerator(byte_tokenizer(), model, defaults)
    config = GreedyGeneratorConfig()
    assert generator(["abc"], config) == generator(["abc"], greedy(3, EOS_ID))
    assert (config.eos_id, config.max_generated_pieces) == (None, None)  # the caller's, unchanged
    own = DefaultGenerator(byte_tokenizer(), model).default_config
    assert (own.eos_id, own.max_generated_pieces) == (EOS_ID, 200)


def test_the_default_config_fills_nothing_else(model):
    """Its way of choosing and its masked pieces are not those of a call that has its own config,
    open or not."""
    (likely, *_) = bytes_of(model, "abc", greedy(1, EOS_ID))
    defaults = SampleGeneratorConfig({likely}, EOS_ID, 30, 0.01, 1, 0.0, seed=5)
    generator = DefaultGenerator(byte_tokenizer(), model, defaults)
    plain = DefaultGenerator(byte_tokenizer(), model)
    for config in (
        GreedyGeneratorConfig(max_generated_pieces=30),
        SampleGeneratorConfig(max_generated_pieces=30, seed=1),
        SampleGeneratorConfig(max_generated_pieces=30, temperature=3.0, top_k=7, seed=1),
    ):
        assert generator(["abc"], config) == plain(["abc"], config)
    assert generator(["abc"], greedy(30)) != plain(["abc"], defaults)


@pytest.mark.parametrize("n", [0, -1, 7])
def test_what_a_config_says_is_not_filled(model, n):
    """Also 0: it means no limit, and is not left open."""
    defaults = GreedyGeneratorConfig(eos_id=EOS_ID, max_generated_pieces=3)
    generator = DefaultGenerator(byte_tokenizer(), model, defaults)
    config = GreedyGeneratorConfig(eos_id=0, max_generated_pieces=n)
    inner = StringGenerator(byte_tokenizer(), Generator(model))
    assert generator(["abc"], config) == inner(["abc"], config)
    assert generator(["abc"], config) != generator(["abc"], defaults)


def test_without_an_end_piece_the_config_has_to_name_one(model):
    tokenizer = byte_tokenizer(eos_token=None)
    generator = DefaultGenerator(tokenizer, model)
    with pytest.raises(ValueError, match="End-of-sequence piece id is unset"):
        generator(["abc"], greedy())
    assert len(generator(["abc"], greedy(3, EOS_ID))) == 1


# ---- streams ----


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("seed", range(5))
def test_a_stream_is_the_batch_text_in_parts(generator, prompt, seed):
    """Random bytes: invalid and incomplete UTF-8 in all combinations."""
    config = SampleGeneratorConfig(max_generated_pieces=60, temperature=2.0, seed=seed)
    parts = list(generator.stream(prompt, config))
    assert "".join(parts) == generator([prompt], config)[0]
    assert all(parts)


class Script:
    """In the place of Generator: says what it is told, one byte or piece a step."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    def start(self, prompts, config):
        self.left = list(self.pieces)
        return self

    @property
    def is_done(self):
        return not self.left

    def run(self, max_steps):
        return [(0, self.left.pop(0), int(not self.left)) for _ in range(max_steps)]


@pytest.mark.parametrize(
    "text",
    [
        "plain words, then more. \n\n end ",
        "Grüße aus Köln",
        "日本語のテキスト",
        "👩‍🚀🇩🇪 x",
        "é" * 3 + " . ' ",
        "   spaces   ",
        "",
    ],
)
def test_a_stream_never_yields_half_a_character(text):
    stream = StringGenerator(byte_tokenizer(), Script(text.encode())).stream_ids([1], greedy())
    parts = list(stream)
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe ok",
        b"cut \xf0\x9f\x91",
        b"\xe6\x97",
        b"a\x80\x80b\xc3(\xe2\x82 d",
        "caf\u00e9\ufffdx".encode(),
    ],
)
def test_bytes_that_are_no_text_become_what_the_batch_makes_of_them(raw):
    stream = StringGenerator(byte_tokenizer(), Script(raw)).stream_ids([1], greedy())
    assert "".join(stream) == byte_tokenizer().decode([list(raw)])[0]


def test_a_stream_does_not_wait_for_the_end():
    """After each byte of a character that is complete its text is there."""
    script = Script("aü日".encode())
    stream = StringGenerator(byte_tokenizer(), script).stream_ids([1], greedy())
    seen = [(part, len(script.left)) for part in stream]
    assert seen == [("a", 5), ("ü", 3), ("日", 0)]


@pytest.mark.parametrize(
    "text",
    [
        "Well , this is it . Is n't it ? We 've won !",
        "it 's a ' b . c",
        "I do n't know",
        "words and spaces ",
        "trailing n",
        "they 're 'm 'x n'x",
    ],
)
def test_a_stream_agrees_with_a_tokenizer_that_removes_spaces(text):
    """The rewriting looks ahead: what has been yielded must not be what it changes later."""
    tokenizer = byte_tokenizer(clean_up_spaces=True)
    pieces = list(text.encode())
    parts = list(StringGenerator(tokenizer, Script(pieces)).stream_ids([1], greedy()))
    assert "".join(parts) == tokenizer.decode([pieces])[0]
    assert len(parts) > 5


def test_special_pieces_are_not_streamed():
    pieces = [*b"a ", EOS_ID, *b"b"]
    stream = StringGenerator(byte_tokenizer(), Script(pieces)).stream_ids([1], greedy())
    assert "".join(stream) == "a b"


def test_a_stream_is_lazy_and_refuses_at_its_first_step(generator):
    stream = generator.stream("", greedy())
    with pytest.raises(ValueError, match="at least one piece"):
        next(stream)


# ---- chats ----

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi ü"}]


def test_a_chat_is_the_reply_to_the_templates_prompt(generator):
    prompt = "[system]Be brief.<eos>[user]Hi ü<eos>[assistant]"
    (expected,) = generator([prompt], greedy())
    assert generator.chat(MESSAGES, greedy()) == expected
    assert "".join(generator.stream(MESSAGES, greedy())) == expected


@pytest.mark.parametrize("messages", ["Hi", {"role": "user"}, [{"content": "x"}], ["Hi"]])
def test_what_is_no_conversation_is_refused(generator, messages):
    with pytest.raises(ValueError, match="message"):
        generator.chat(messages, greedy())


def test_a_tokenizer_without_a_template_cannot_chat(model):
    generator = DefaultGenerator(byte_tokenizer(chat_template=None), model)
    with pytest.raises(ValueError, match="no default chat template"):
        generator.chat(MESSAGES, greedy())


def test_generators_say_what_they_are(generator):
    assert repr(generator).startswith("DefaultGenerator(LlamaCausalLM(")
