"""Byte BPE and RoBERTa. The oracle for splitting is the `tokenizers` library's byte-level BPE."""

from __future__ import annotations

import random

import pytest
import tokenizers as engine
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from curated_transformers.tokenizers import InputChunks, SpecialPieceChunk, TextChunk
from curated_transformers.tokenizers.legacy import ByteBPETokenizer, RoBERTaTokenizer
from curated_transformers.tokenizers.legacy.bbpe_tokenizer import read_merges
from curated_transformers.tokenizers.legacy.files import read_vocab_json

ALPHABET = {piece: number for number, piece in enumerate(sorted(ByteLevel.alphabet()))}


def with_merges(*merges):
    vocab = dict(ALPHABET)
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    return {"vocab": vocab, "merges": list(merges)}


@pytest.fixture(scope="module")
def trained(vocabularies):
    vocab = read_vocab_json(vocabularies / "vocab.json")
    merges = read_merges(vocabularies / "merges.txt")
    oracle = engine.Tokenizer(BPE(vocab=vocab, merges=merges))
    oracle.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return ByteBPETokenizer(vocab=vocab, merges=merges), oracle


def test_any_text_is_split_as_by_the_original_and_comes_back(trained):
    tokenizer, oracle = trained

    @settings(max_examples=300, deadline=None)
    @given(
        st.text(
            st.one_of(
                st.sampled_from("  \n\t\u00a0'aestrhé今ا1.!"),
                # Not yet assigned characters depend on the version of Unicode.
                st.characters(exclude_categories=("Cs", "Cn")),
            ),
            max_size=60,
        )
    )
    def check(text):
        pieces = tokenizer([text])
        assert pieces.ids[0] == oracle.encode(text).ids
        assert tokenizer.decode(pieces.ids) == [text]

    check()


@pytest.mark.parametrize("n_spaces", range(1, 8))
def test_runs_of_spaces_leave_the_last_to_the_next_word(n_spaces, trained):
    tokenizer, oracle = trained
    text = "a" + " " * n_spaces + "b" + " " * n_spaces
    pieces = tokenizer([text])
    assert pieces.pieces[0] == oracle.encode(text).tokens
    assert "Ġb" in "".join(pieces.pieces[0])
    assert tokenizer.decode(pieces.ids) == [text]


@pytest.mark.parametrize("alphabet", ["a", "ab", "estrhn", "今天é", " ", "\U0001f468\u200d", "."])
def test_long_words_are_merged_as_short_ones_are(alphabet, trained):
    tokenizer, oracle = trained
    generator = random.Random(alphabet)
    for length in (60, 64, 65, 66, 300, 5000, 200_000):
        text = "".join(generator.choice(alphabet) for _ in range(length))
        assert tokenizer([text]).ids[0] == oracle.encode(text).ids


def test_merges_apply_by_rank_and_from_left_to_right():
    tokenizer = ByteBPETokenizer(**with_merges(("a", "a"), ("b", "aa"), ("aa", "b"), ("aa", "a")))
    for text, expected in [
        ("aaa", ["aaa"]),
        ("aaaa", ["aa", "aa"]),
        ("baab", ["baa", "b"]),
        ("ab", ["a", "b"]),
    ]:
        assert tokenizer([text]).pieces == [expected]


def test_plain_byte_bpe_has_no_eos_but_looks_up_pieces(trained):
    tokenizer, _ = trained
    assert tokenizer.eos_piece is None
    assert tokenizer.piece_to_id("Ġthe") == tokenizer([" the"]).ids[0][0]
    assert tokenizer.piece_to_id("no such piece") is None


def test_bytes_that_are_not_utf8_decode_to_the_replacement_character():
    tokenizer = ByteBPETokenizer(vocab=ALPHABET, merges=[])
    (ids,) = tokenizer(["a\u00e9\U0001f468z"]).ids
    assert tokenizer.decode([ids[:2] + ids[3:]]) == ["a\ufffd\U0001f468z"]
    assert tokenizer.decode([ids[:5] + ids[-1:]]) == ["a\u00e9\ufffdz"]


@pytest.mark.parametrize("text", ["é", "x" * 100 + "é"])
def test_a_byte_that_the_vocabulary_lacks_is_named(text):
    vocab = {piece: number for number, piece in enumerate("abcx")}
    with pytest.raises(ValueError, match="Vocabulary does not contain byte 'Ã'"):
        ByteBPETokenizer(vocab=vocab, merges=[])([text])


def test_special_pieces_join_the_vocabulary_and_are_left_out_when_decoding():
    vocab = dict(ALPHABET)
    tokenizer = ByteBPETokenizer(vocab=vocab, merges=[], special_pieces={"<日 本>": 256})
    chunks = InputChunks([TextChunk("a"), SpecialPieceChunk("<日 本>"), TextChunk("b")])
    (ids,) = tokenizer([chunks]).ids
    assert ids == [vocab["a"], 256, vocab["b"]]
    assert tokenizer.decode([ids]) == ["ab"]
    assert tokenizer.decode([ids], skip_special_pieces=False) == ["a<日 本>b"]
    assert vocab == ALPHABET  # the caller's dictionary stays as it is


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ({"a": 0}, [("a", "b")], "Merge of 'a' and 'b': 'b' is not in the vocabulary"),
        ({"a": 0, "b": 1}, [("a", "b")], "Merge of 'a' and 'b': 'ab' is not in the vocabulary"),
        ({"a": 0, "b": 0}, [], "'a' and 'b' have the same id 0"),
        ({"a": "0"}, [], "must be a number from 0, was '0'"),
    ],
)
def test_vocabularies_and_merges_that_do_not_fit_are_refused(vocab, merges, message):
    with pytest.raises(ValueError, match=message):
        ByteBPETokenizer(vocab=vocab, merges=merges)


# RoBERTa.


def test_roberta_puts_its_pieces_around_an_input(roberta):
    pieces = roberta(["the last", ""])
    assert pieces.pieces[0][0] == "<s>"
    assert pieces.pieces[1] == ["<s>", "</s>"]
    assert pieces.ids[1] == [0, 2]
    assert roberta.eos_piece == "</s>"


def test_roberta_decodes_padding_to_nothing_unless_asked(roberta):
    (ids,) = roberta(["the last"]).ids
    padded = [*ids, 1, 1, 4]
    assert roberta.decode([padded]) == ["the last"]
    assert roberta.decode([padded], skip_special_pieces=False) == ["the last<pad><pad><mask>"]


def test_special_pieces_written_in_a_text_are_text(roberta):
    (ids,) = roberta(["<mask>"]).ids
    assert 4 not in ids
    assert roberta.decode([ids]) == ["<mask>"]


def test_missing_special_pieces_are_named():
    with pytest.raises(ValueError, match="vocabulary doesn't contain '</s>' piece"):
        RoBERTaTokenizer(vocab={**ALPHABET, "<s>": 256}, merges=[])
    with pytest.raises(ValueError, match="vocabulary doesn't contain '<bos>' piece"):
        RoBERTaTokenizer(vocab={**ALPHABET, "</s>": 256}, merges=[], bos_piece="<bos>")
