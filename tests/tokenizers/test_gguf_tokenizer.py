"""Byte-level BPE from GGUF metadata, beside an independent tokenizer written from its rules."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import pytest
from checkpoint_writers import ARRAY, BOOL, INT32, STRING, UINT32, gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from curated_transformers.checkpoint import GGUFFile
from curated_transformers.tokenizers import AutoTokenizer, Tokenizer

# GPT-2's table: printable bytes stand for themselves, the others for code points from 256 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
TO_CHARACTER = {byte: chr(byte) for byte in PRINTABLE} | {
    byte: chr(256 + rank) for rank, byte in enumerate(OTHERS)
}
# GPT-2's regular expression for text without digits: there, `\w` is a letter or an underscore.
GPT2 = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W_]+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+",
)


def split_words(text):
    """Every digit on its own, the text between as GPT-2 splits it."""
    words, rest = [], ""
    for character in [*text, None]:
        is_digit = character is not None and unicodedata.category(character).startswith("N")
        if character is not None and not is_digit:
            rest += character
            continue
        words += GPT2.findall(rest)
        rest = ""
        if is_digit:
            words.append(character)
    return words


def merge(word, ranks):
    pieces = [TO_CHARACTER[byte] for byte in word.encode()]
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged, position = [], 0
        while position < len(pieces):
            here = tuple(pieces[position : position + 2]) == best
            merged.append("".join(best) if here else pieces[position])
            position += 2 if here else 1
        pieces = merged
    return pieces


@pytest.fixture(scope="module")
def real(smollm2):
    return Tokenizer.from_path(smollm2)


@pytest.fixture(scope="module")
def expected(smollm2):
    metadata = GGUFFile(smollm2).metadata
    pieces = metadata["tokenizer.ggml.tokens"]
    ids = {piece: index for index, piece in enumerate(pieces)}
    pairs = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def tokenize(text):
        return [ids[piece] for word in split_words(text) for piece in merge(word, ranks)]

    return tokenize


# Bytes that SmolLM2's vocabulary lacks (its tokenizer drops them) stay out of the alphabet.
ALPHABET = (
    "abcsStTrevlmd XYZ  ''.,!?()_-+=<>|{}[]\n\r\t 0123789"
    "²½Ⅷ٣éßñüçå東京한국日😀🇩\u2019\u0435\u0301\u00a0\u2003"
)


@pytest.mark.real_model
@settings(max_examples=300, deadline=None)
@given(text=st.text(ALPHABET, max_size=60))
def test_smollm2_tokenizes_like_the_rules(text, real, expected):
    pieces = real([text])
    assert pieces.ids == [expected(text)]
    assert real.decode(pieces.ids) == [text]


@pytest.mark.real_model
def test_smollm2_special_pieces_and_chat(real):
    assert real.eos_piece == "<|im_end|>"
    ids = real(["<|im_start|>user\nHi<|im_end|>"]).ids
    assert ids[0][0] == 1
    assert ids[0][-1] == 2
    assert real.decode(ids) == ["user\nHi"]
    prompt = real.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.startswith("<|im_start|>system\n")
    ids = real.encode_chat([{"role": "user", "content": "Hi"}]).ids
    assert real.decode(ids, skip_special_pieces=False) == [prompt]


@pytest.mark.real_model
def test_minilm_pads_no_more_than_the_batch_needs(minilm):
    pieces = AutoTokenizer.from_path(minilm)(["a kitten", "a"])
    assert pieces.padded_tensor().shape == (2, 4)
    assert pieces.pieces[1] == ["[CLS]", "a", "[SEP]"]


PIECES = [*"abc1 ", "Ġ", "ab", "Ġa", "<s>", "</s>", "<user>"]
BASE = {
    "model": (STRING, "gpt2"),
    "pre": (STRING, "smollm"),
    "tokens": (ARRAY, (STRING, PIECES)),
    "token_type": (ARRAY, (INT32, [1] * 8 + [3, 3, 4])),
    "merges": (ARRAY, (STRING, ["a b", "Ġ a"])),
    "bos_token_id": (UINT32, 8),
    "eos_token_id": (UINT32, 9),
    "padding_token_id": (UINT32, 0),
}


@pytest.fixture
def load(tmp_path):
    def load_file(other=(), **changes):
        entries = {**BASE, **changes}
        path = tmp_path / "model.gguf"
        raw = [(f"tokenizer.ggml.{key}", *value) for key, value in entries.items() if value]
        path.write_bytes(gguf([*raw, *other]))
        return AutoTokenizer.from_path(path)

    return load_file


def test_pieces_around_texts_are_those_that_the_file_asks_for(load):
    assert load()(["ab a"]).ids == [[6, 7]]
    assert load(add_bos_token=(BOOL, 1))(["ab"]).ids == [[8, 6]]
    assert load(add_eos_token=(BOOL, 1), add_bos_token=(BOOL, 1))(["ab"]).ids == [[8, 6, 9]]
    assert load(pre=(STRING, "llama-bpe"))(["ab"]).ids == [[8, 6]]


def test_control_pieces_are_skipped_when_decoding_and_user_defined_ones_are_not(load):
    tokenizer = load()
    assert tokenizer(["a<s><user>b"]).ids == [[0, 8, 10, 1]]
    assert tokenizer.decode([[0, 8, 10, 1]]) == ["a<user>b"]
    assert tokenizer.decode([[0, 8, 10, 1]], skip_special_pieces=False) == ["a<s><user>b"]


def test_decoding_changes_no_spaces(load):
    assert load().decode([[0, 5, 5, 1]]) == ["a  b"]


def test_rules_differ_in_how_digits_are_split(load):
    tokens = (ARRAY, (STRING, [*PIECES[:8], "11", "<s>", "</s>"]))
    changes = {
        "tokens": tokens,
        "token_type": None,
        "merges": (ARRAY, (STRING, ["a b", "Ġ a", "1 1"])),
    }
    assert load(**changes, pre=(STRING, "smollm"))(["1111"]).ids == [[3] * 4]
    assert load(**changes, pre=(STRING, "qwen2"))(["1111"]).ids == [[3] * 4]
    assert load(**changes, pre=(STRING, "gpt-2"))(["1111"]).ids == [[8, 8]]
    assert load(**changes, pre=None)(["1111"]).ids == [[8, 8]]
    llama = load(**changes, pre=(STRING, "llama-bpe"), add_bos_token=(BOOL, 0))
    assert llama(["1111"]).ids == [[8, 3, 3]]


def test_chat_templates_of_the_file(load):
    key = "tokenizer.chat_template"
    tokenizer = load([(key, STRING, "{{ eos_token }}"), (f"{key}.tool_use", STRING, "t")])
    assert tokenizer.chat_template == "{{ eos_token }}"
    messages = [{"role": "user", "content": ""}]
    assert tokenizer.apply_chat_template(messages) == "</s>"
    assert tokenizer.apply_chat_template(messages, tools=[1]) == "t"
    assert load().chat_template is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": (STRING, "t5")}, NotImplementedError, "kind `t5`.*only `gpt2`, `llama`, `bert`"),
        ({"model": (STRING, "llama")}, ValueError, "scores must be a list of finite numbers"),
        ({"model": None}, NotImplementedError, "kind `None`"),
        ({"pre": (STRING, "jais")}, NotImplementedError, "pre `jais` is not supported; supported:"),
        ({"tokens": None}, ValueError, "tokens must be a list of strings"),
        ({"tokens": (ARRAY, (INT32, [1]))}, ValueError, "tokens must be a list of strings"),
        ({"tokens": (ARRAY, (STRING, ["a", "a"]))}, ValueError, "tokens holds a piece twice"),
        ({"merges": (STRING, "a b")}, ValueError, "merges must be list"),
        ({"merges": (ARRAY, (STRING, ["ab"]))}, ValueError, "merges must be pairs"),
        ({"merges": (ARRAY, (STRING, ["x y"]))}, ValueError, "merges does not fit the pieces"),
        ({"token_type": (ARRAY, (INT32, [1]))}, ValueError, "token_type has 1 entries for 11"),
        ({"bos_token_id": (UINT32, 11)}, ValueError, "bos_token_id 11 is outside of 11 pieces"),
        ({"eos_token_id": (STRING, "x")}, ValueError, "eos_token_id must be int"),
        (
            {"bos_token_id": None, "add_bos_token": (BOOL, 1)},
            ValueError,
            "bos_token_id is missing, but add_bos_token is set",
        ),
    ],
)
def test_broken_and_unsupported_metadata_is_refused(changes, error, message, load):
    with pytest.raises(error, match=message) as refusal:
        load(**changes)
    assert "model.gguf" in str(refusal.value)
