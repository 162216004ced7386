"""SentencePiece and WordPiece from GGUF metadata, against what sentencepiece and transformers do
with the same vocabularies (`oracles/vocabularies.py`); rules of splitting. Equality is exact."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from checkpoint_writers import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT32, gguf
from curated_tokenizers import SentencePieceProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_texts import TEXTS

from curated_transformers.tokenizers import AutoTokenizer, Tokenizer

FOLDER = Path(__file__).parent.parent / "golden" / "tokenizers"
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
CONTROL, USER_DEFINED = 3, 4


def strings(values):
    return (ARRAY, (STRING, values))


def write(path, architecture="llama", **entries):
    """Keys are those below `tokenizer.ggml.`, with two underscores for a dot."""
    named = [(f"tokenizer.ggml.{key.replace('__', '.')}", *value) for key, value in entries.items()]
    path.write_bytes(gguf([("general.architecture", STRING, architecture), *named]))
    return path


def sentencepiece_entries():
    vocabulary = json.loads((FOLDER / "bpe.json").read_text("utf-8"))
    return {
        "model": (STRING, "llama"),
        "tokens": strings(vocabulary["tokens"]),
        "scores": (ARRAY, (FLOAT32, vocabulary["scores"])),
        "token_type": (ARRAY, (INT32, vocabulary["token_type"])),
    }


@pytest.fixture
def load(tmp_path):
    def load_file(entries, **changes):
        architecture = changes.pop("architecture", "llama")
        path = write(tmp_path / "model.gguf", architecture, **(entries | changes))
        return AutoTokenizer.from_path(path)

    return load_file


def check(tokenizer, expected):
    assert isinstance(tokenizer, Tokenizer)
    pieces = tokenizer(TEXTS)
    for text, ids, names, *wanted in zip(
        TEXTS, pieces.ids, pieces.pieces, expected["ids"], expected["pieces"], strict=True
    ):
        assert [ids, names] == wanted, text
    return pieces.ids


# SentencePiece.


def test_sentencepiece_splits_and_decodes_as_the_original(load):
    tokenizer = load(sentencepiece_entries())
    ids = check(tokenizer, EXPECTED["llama"])
    assert tokenizer.decode(ids) == EXPECTED["llama"]["texts"]


PROCESSOR = SentencePieceProcessor.from_file(str(FOLDER / "bpe.model"))
ALPHABET = "abcdehinorst  ..==\n\tABü日の😀\u2581\u00a0"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "model.gguf"
    return Tokenizer.from_path(write(path, **sentencepiece_entries()))


@settings(max_examples=500, deadline=None)
@given(st.text(ALPHABET, max_size=40) | st.text(max_size=20))
def test_any_text_is_split_as_the_original_does(small, text):
    # A zero ends the text for the library beside, and special pieces are text for it alone.
    if "\0" in text or any(piece in text for piece in ("<unk>", "<s>", "</s>")):
        return
    assert small.encode([text], add_special_pieces=False).ids[0] == PROCESSOR.encode(text)[0]


def test_a_prefix_is_put_before_each_text_unless_the_file_says_otherwise(load):
    entries = sentencepiece_entries()
    pieces = load(entries)(["the <s>the", ""]).pieces
    assert pieces == [["<s>", "▁the", "▁", "<s>", "▁the"], ["<s>"]]
    plain = load(entries, add_space_prefix=(BOOL, 0))
    assert "".join(plain(["the the"]).pieces[0]) == "<s>the▁the"
    assert plain.decode(plain([" the the"]).ids) == [" the the"]
    assert load(entries).decode(load(entries)([" the the"]).ids) == [" the the"]


def test_ids_and_the_piece_that_begins_a_text_have_defaults(load):
    entries = sentencepiece_entries()
    assert load(entries).eos_piece == "</s>"
    assert load(entries, eos_token_id=(UINT32, 5)).eos_piece == entries["tokens"][1][1][5]
    assert load(entries, add_bos_token=(BOOL, 0))(["<s>"]).ids == [[1]]
    assert load(entries, add_eos_token=(BOOL, 1))([""]).ids == [[1, 2]]


def with_pieces(*added):
    """The vocabulary with (piece, type) at its end, which no pair makes."""
    entries = sentencepiece_entries()
    tokens, scores, types = (entries[key][1][1] for key in ("tokens", "scores", "token_type"))
    return entries | {
        "tokens": strings(tokens + [piece for piece, _ in added]),
        "scores": (ARRAY, (FLOAT32, [*scores, *[0.0] * len(added)])),
        "token_type": (ARRAY, (INT32, [*types, *[kind for _, kind in added]])),
    }


def test_pieces_that_users_defined_are_found_first_and_kept_by_decoding(load):
    entries = with_pieces(("the <b>", USER_DEFINED), ("\n\n", USER_DEFINED))
    tokenizer = load(entries, add_space_prefix=(BOOL, 0))
    pieces = tokenizer(["the <b>\n\n\n"])
    assert pieces.pieces == [["<s>", "the <b>", "\n\n", "<0x0A>"]]
    assert tokenizer.decode(pieces.ids) == ["the <b>\n\n\n"]


def test_special_pieces_of_phi3_take_the_space_behind_them(load):
    entries = with_pieces(("<|user|>", CONTROL), ("<|endoftext|>", CONTROL))
    text = "<|user|>\n the<|endoftext|> the"
    kept = load(entries)([text]).pieces[0]
    assert kept == ["<s>", "<|user|>", "▁", "<0x0A>", "▁the", "<|endoftext|>", "▁", "▁the"]
    tokenizer = load(entries, architecture="phi3")
    swallowed = [tokenizer.tokenizer.id_to_token(index) for index in tokenizer([text]).ids[0]]
    assert swallowed == ["<s>", "<|user|>", "▁the", "<|endoftext|>", "▁", "▁the"]


# WordPiece.


def wordpiece_entries():
    """As converters write a vocabulary: the mark is where a word begins."""
    pieces = (FOLDER / "vocab.txt").read_text("utf-8").splitlines()
    special = [piece for piece in pieces if piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    marked = [
        piece if piece in special else piece[2:] if piece.startswith("##") else f"\u2581{piece}"
        for piece in pieces
    ]
    ids = {f"{name}_token_id": pieces.index(piece) for name, piece in WORDPIECE_IDS.items()}
    return {
        "model": (STRING, "bert"),
        "tokens": strings(marked),
        "token_type": (ARRAY, (INT32, [CONTROL if p in special else 1 for p in pieces])),
        **{key: (UINT32, index) for key, index in ids.items()},
    }


WORDPIECE_IDS = {"cls": "[CLS]", "seperator": "[SEP]", "unknown": "[UNK]", "padding": "[PAD]"}


@pytest.mark.parametrize(
    ("name", "lowercase", "strip_accents"),
    [
        ("bert_uncased", None, None),
        ("bert_uncased_accents", 1, 0),
        ("bert_cased", 0, 0),
        ("bert_cased_no_accents", 0, 1),
    ],
)
def test_wordpiece_splits_and_decodes_as_the_original(name, lowercase, strip_accents, load):
    options = {"normalizer__lowercase": lowercase, "normalizer__strip_accents": strip_accents}
    chosen = {key: (BOOL, value) for key, value in options.items() if value is not None}
    tokenizer = load(wordpiece_entries(), **chosen)
    assert tokenizer.decode(check(tokenizer, EXPECTED[name])) == EXPECTED[name]["texts"]


def test_pairs_of_texts_have_one_piece_at_the_begin_and_two_types(load):
    encoding = load(wordpiece_entries()).tokenizer.encode("the", "the")
    assert encoding.tokens == ["[CLS]", "the", "[SEP]", "the", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]


def test_the_mark_itself_can_be_a_piece(load):
    tokens = ["[UNK]", "[CLS]", "[SEP]", "\u2581a", "\u2581", "\u2581\u2581", "[unused1]"]
    tokenizer = load(
        {
            "model": (STRING, "bert"),
            "tokens": strings(tokens),
            "unknown_token_id": (UINT32, 0),
            "cls_token_id": (UINT32, 1),
            "seperator_token_id": (UINT32, 2),
        }
    )
    assert tokenizer(["a\u2581 \u2581 [unused1]"]).ids == [[1, 3, 4, 5, 0, 0, 0, 2]]


# Splitting of byte-level BPE.


@pytest.mark.parametrize(
    ("rule", "text", "words"),
    [
        # Every run of punctuation is apart, as is every three digits of a number.
        ("falcon", "don't a!? 12345 b", ["don", "'", "t", " a", "!?", " ", "123", "45", " b"]),
        ("gpt-2", "don't a!? 12345 b", ["don", "'t", " a", "!?", " 12345", " b"]),
        ("mpt", "don't a!? 12345 b", ["don", "'t", " a", "!?", " 12345", " b"]),
        ("smollm", "don't a!? 12345 b", ["don", "'t", " a", "!?", " ", *"12345", " b"]),
        ("falcon3", "DON'T a!? 12345 b", ["DON", "'T", " a", "!?", " ", "123", "45", " b"]),
        ("qwen2", "DON'T a!? 12345 b", ["DON", "'T", " a", "!?", " ", *"12345", " b"]),
    ],
)
def test_how_text_is_split_before_merging(rule, text, words, load):
    tokenizer = load(
        {
            "model": (STRING, "gpt2"),
            "pre": (STRING, rule),
            "tokens": strings(["a", "b", "ab"]),
            "merges": strings(["a b"]),
        }
    )
    split = tokenizer.tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [word.replace("Ġ", " ") for word, _ in split] == words


@pytest.mark.parametrize(("rule", "composes"), [("mpt", True), ("qwen2", True), ("gpt-2", False)])
def test_rules_of_which_tokenizers_compose_characters(rule, composes, load):
    entries = {
        "model": (STRING, "gpt2"),
        "pre": (STRING, rule),
        "tokens": strings(["e", "Ì", "ģ", "Ã", "©", "Ã©"]),
        "merges": strings(["Ã ©"]),
    }
    pieces = load(entries)(["e\u0301"]).pieces
    assert pieces == ([["Ã©"]] if composes else [["e", "Ì", "ģ"]])


# Refusals.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": (ARRAY, (FLOAT32, [0.0]))}, "scores has 1 entries for"),
        ({"scores": (ARRAY, (FLOAT32, [float("nan")] * 2))}, "must be a list of finite numbers"),
        ({"token_type": (ARRAY, (INT32, [1]))}, "token_type has 1 entries for"),
        ({"unknown_token_id": (UINT32, 10**6)}, "unknown_token_id 1000000 is outside"),
    ],
)
def test_broken_sentencepiece_metadata_is_refused(changes, message, load):
    with pytest.raises(ValueError, match=message):
        load(sentencepiece_entries(), **changes)


def test_broken_wordpiece_metadata_is_refused(load):
    entries = wordpiece_entries()
    tokens, types = entries["tokens"][1][1], entries["token_type"][1][1]
    twice = {
        "tokens": strings(["##a", "a", *tokens]),
        "token_type": (ARRAY, (INT32, [CONTROL, 1, *types])),
    }
    with pytest.raises(ValueError, match="holds a piece twice"):
        load(entries, **twice)
    few = {"tokens": strings(["\u2581a"]), "token_type": (ARRAY, (INT32, [1]))}
    without = {key: value for key, value in entries.items() if not key.endswith("_id")} | few
    with pytest.raises(ValueError, match="unknown_token_id is missing"):
        load(without)
    with pytest.raises(ValueError, match="cls_token_id is missing, but add_bos_token is set"):
        load(without, unknown_token_id=(UINT32, 0))


# The vocabularies that llama.cpp is tested with: its folder `models/`, or that of its Python
# package's source. Only texts that it splits as the original tokenizers do stand in them.

VOCABULARIES = os.environ.get("LLAMA_CPP_VOCABULARIES")
SPLIT = "\n__ggml_vocab_test__\n"


@pytest.mark.slow
@pytest.mark.skipif(not VOCABULARIES, reason="LLAMA_CPP_VOCABULARIES names no folder")
@pytest.mark.parametrize(
    "name",
    [
        *("llama-spm", "phi-3", "bert-bge"),
        *("llama-bpe", "qwen2", "gpt-2", "falcon", "mpt", "starcoder", "refact"),
    ],
)
def test_real_vocabularies_split_as_llama_cpp(name):
    path = Path(VOCABULARIES) / f"ggml-vocab-{name}.gguf"
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split(SPLIT)
    rows = path.with_suffix(".gguf.out").read_text().split("\n")
    expected = [[int(number) for number in row.split()] for row in rows[: len(texts)]]
    encoded = AutoTokenizer.from_path(path).encode(texts, add_special_pieces=name == "bert-bge").ids
    if name == "bert-bge":
        encoded = [ids[1:-1] for ids in encoded]
    assert encoded == expected
