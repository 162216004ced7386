"""WordPiece and BERT. Expected ids follow from the vocabularies by hand."""

from __future__ import annotations

import pytest

from curated_transformers.tokenizers import InputChunks, SpecialPieceChunk, TextChunk
from curated_transformers.tokenizers.legacy import BERTTokenizer, WordPieceTokenizer
from curated_transformers.tokenizers.legacy.bert_tokenizer import BERTPreEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def numbered(*pieces):
    return {piece: number for number, piece in enumerate(pieces)}


WORDS = numbered("un", "##known", "##kn", "##own", "unk", "a", "##a", "<x>", "é", "##日")


@pytest.fixture
def wordpiece():
    return WordPieceTokenizer(vocab=WORDS, special_pieces=None)


def test_words_are_split_into_the_longest_pieces_first(wordpiece):
    # "unk" is longer than "un", although "un ##known" would have fitted.
    pieces = wordpiece(["unknown un a aaa é日", ""])
    assert pieces.pieces[0] == ["unk", "##nown", "un", "a", "a", "##a", "##a", "é", "##日"]
    assert pieces.ids == [[4, -1, 0, 5, 5, 6, 6, 8, 9], []]


def test_what_matches_nothing_keeps_its_text_and_gets_minus_one(wordpiece):
    pieces = wordpiece(["axyz  xyz"])
    assert (pieces.ids, pieces.pieces) == ([[5, -1, -1]], [["a", "##xyz", "xyz"]])


def test_plain_wordpiece_has_no_eos_but_looks_up_pieces(wordpiece):
    assert wordpiece.eos_piece is None
    assert wordpiece.piece_to_id("##own") == 3
    assert wordpiece.piece_to_id("own") is None
    assert wordpiece.decode([[0, 3, 5]]) == ["unown a"]


def test_special_pieces_join_the_vocabulary_and_are_left_out_when_decoding():
    vocab = dict(WORDS)
    tokenizer = WordPieceTokenizer(vocab=vocab, special_pieces={"<eos>": 10, "<x>": 7})
    chunks = InputChunks([TextChunk("a"), SpecialPieceChunk("<eos>"), SpecialPieceChunk("<x>")])
    assert tokenizer([chunks]).ids == [[5, 10, 7]]
    assert tokenizer.decode([[5, 10, 7]]) == ["a"]
    assert tokenizer.decode([[5, 10, 7]], skip_special_pieces=False) == ["a <eos> <x>"]
    assert vocab == WORDS  # the caller's dictionary stays as it is


@pytest.mark.parametrize("text", ["a##b", "##", "a", "aa", "####"])
def test_a_bare_continuation_mark_in_the_vocabulary_does_not_loop(text):
    tokenizer = WordPieceTokenizer(vocab=numbered("a", "##", "##a"), special_pieces=None)
    ids = tokenizer([text]).ids[0]
    assert 1 not in ids
    assert tokenizer.decode([[0, 1, 2]]) == ["aa"]


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"a": 0, "b": 3}, r"contains unused indices: \[1, 2\]"),
        ({"a": 10**12}, "contains unused indices"),
        ({"a": 0, "b": 0}, "'a' and 'b' have the same id 0"),
        ({"a": -1, "b": 0}, "must be a number from 0"),
    ],
)
def test_ids_must_be_dense(vocab, message):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer(vocab=vocab, special_pieces=None)


def test_a_word_of_a_megabyte_is_split_without_trying_every_prefix(wordpiece):
    n = 1_000_000
    assert wordpiece(["a" * n]).ids == [[5] + [6] * (n - 1)]


# BERT.


@pytest.fixture
def make_bert():
    def make(*words, **options):
        return BERTTokenizer(vocab=numbered(*SPECIAL, *words), **options)

    return make


def names(tokenizer, text):
    return tokenizer([text]).pieces[0][1:-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AWO-Mitarbeiter", "AWO - Mitarbeiter"),
        ("-Mitarbeiter", "- Mitarbeiter"),
        ("AWO-", "AWO -"),
        ("-", "-"),
        ("", ""),
        ("Mw.-St.", "Mw . - St ."),
        ("a  b", "a  b"),
        ("«x» y。z", "« x » y 。 z"),
        ("$1^2~", "$ 1 ^ 2 ~"),
    ],
)
def test_pre_encoder_sets_punctuation_apart(text, expected):
    pre_encoder = BERTPreEncoder(bos_piece="[CLS]", eos_piece="[SEP]")
    assert pre_encoder([InputChunks([TextChunk(text)])]) == [
        InputChunks([SpecialPieceChunk("[CLS]"), TextChunk(expected), SpecialPieceChunk("[SEP]")])
    ]


def test_a_word_with_an_unknown_rest_is_unknown_as_a_whole(make_bert):
    tokenizer = make_bert("po", "##ke", "bowl", "##s")
    pieces = tokenizer(["poke bowls pox"])
    assert pieces.pieces == [["[CLS]", "po", "##ke", "bowl", "##s", "[UNK]", "[SEP]"]]
    assert pieces.ids == [[2, 5, 6, 7, 8, 1, 3]]


@pytest.mark.parametrize("space", "\t\n\r\u00a0\u2003\u3000\u2028\u2029\u1680")
def test_every_white_space_separates_words(space, make_bert):
    assert names(make_bert("a", "b"), f"{space}a{space}{space}b{space}") == ["a", "b"]


@pytest.mark.parametrize("control", "\x00\x07\x0b\x1f\x7f\x85\u00ad\u200b\u200d\ufeff\ufffd\ue000")
def test_control_characters_are_dropped(control, make_bert):
    assert names(make_bert("ab"), f"a{control}b") == ["ab"]


def test_words_of_more_than_100_characters_are_unknown(make_bert):
    tokenizer = make_bert("a", "##a")
    assert names(tokenizer, "a" * 100) == ["a"] + ["##a"] * 99
    assert names(tokenizer, "a" * 101) == ["[UNK]"]


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "É", ["É"]),
        ({"lowercase": True}, "É", ["é"]),
        ({"lowercase": True, "strip_accents": True}, "É", ["e"]),
        ({"lowercase": True, "strip_accents": None}, "É", ["e"]),
        ({"lowercase": False, "strip_accents": None}, "É", ["É"]),
        ({"strip_accents": True}, "É", ["E"]),
        ({}, "x今天y", ["x", "今", "天", "y"]),
        ({"tokenize_chinese_chars": False}, "x今天y", ["[UNK]"]),
    ],
)
def test_lower_case_accents_and_chinese_characters(options, text, expected, make_bert):
    tokenizer = make_bert("É", "é", "e", "E", "x", "今", "天", "y", **options)
    assert names(tokenizer, text) == expected


def test_special_pieces_written_in_a_text_are_text(make_bert):
    assert names(make_bert("[", "mask", "]", lowercase=True), "[MASK]") == ["[", "mask", "]"]


def test_decoding_leaves_out_bos_and_eos_always_and_other_special_pieces_if_asked(make_bert):
    tokenizer = make_bert("the", "ferr", "##y", ",", ".", "'", "don", "t")
    ids = [2, 5, 6, 7, 1, 8, 10, 9, 3, 0, 0]
    assert tokenizer.decode([ids]) == ["the ferry, '."]
    assert tokenizer.decode([ids], skip_special_pieces=False) == ["the ferry [UNK], '. [PAD] [PAD]"]
    assert tokenizer.decode([[2, 11, 10, 12, 3]]) == ["don't"]


@pytest.mark.parametrize("piece", ["bos_piece", "eos_piece", "unk_piece"])
def test_missing_special_pieces_are_named(piece, make_bert):
    with pytest.raises(ValueError, match=r"doesn't contain the special pieces \['<y>'\]"):
        make_bert("a", **{piece: "<y>"})


def test_bert_decodes_continuations_at_the_beginning(make_bert):
    assert make_bert("a", "##b").decode([[6, 5]]) == ["b a"]


def test_the_callers_vocabulary_stays_as_it_is():
    vocab = numbered(*SPECIAL, "a")
    before = dict(vocab)
    BERTTokenizer(vocab=vocab, special_pieces={"<new>": 6})
    assert vocab == before
