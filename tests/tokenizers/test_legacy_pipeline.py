"""What all legacy tokenizers share: inputs, chunks, normalizers, special pieces."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from curated_transformers.generation import DefaultGenerator
from curated_transformers.tokenizers import InputChunks, PiecesWithIds, SpecialPieceChunk, TextChunk
from curated_transformers.tokenizers.legacy import (
    ByteBPETokenizer,
    PostDecoder,
    PostEncoder,
    PreDecoder,
    PreEncoder,
    WordPieceTokenizer,
)
from curated_transformers.tokenizers.legacy.legacy_tokenizer import (
    AddBosEosPreEncoder,
    DefaultNormalizer,
    UnicodeNormalization,
)

KINDS = ["bert", "roberta", "llama", "xlmr", "camembert"]


@pytest.fixture(params=KINDS)
def tokenizer(request, legacy_tokenizers):
    return legacy_tokenizers[request.param]


def test_a_bare_string_is_refused_not_split_into_characters(tokenizer):
    with pytest.raises(ValueError, match=r"single string; write \[text\]"):
        tokenizer("The ferry")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (["The", 3, None], "Non-string inputs: NoneType, int"),
        ([InputChunks(), "The"], "Non-chunk inputs: str"),
        ([3], "Non-chunk inputs: int"),
    ],
)
def test_inputs_of_other_types_are_refused(batch, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        tokenizer(batch)


def test_an_empty_batch_gives_an_empty_result(tokenizer):
    assert tokenizer([]) == PiecesWithIds(ids=[], pieces=[])
    assert tokenizer.decode([]) == []
    assert tokenizer.decode([[]]) == [""]


def test_an_unknown_special_piece_is_refused(tokenizer):
    with pytest.raises(ValueError, match="Unknown special piece: <other>"):
        tokenizer([InputChunks([SpecialPieceChunk("<other>")])])


def test_the_callers_chunks_stay_as_they_are(tokenizer):
    chunks = [InputChunks([TextChunk("Über DEN\tDächern"), TextChunk("-x")])]
    before = copy.deepcopy(chunks)
    tokenizer(chunks)
    assert chunks == before


def test_chunks_of_text_are_the_text(tokenizer):
    chunks = InputChunks([TextChunk("The last "), TextChunk("one")])
    assert tokenizer([chunks]) == tokenizer(["The last one"])


def test_special_chunks_stand_between_texts_encoded_by_themselves(tokenizer):
    eos = tokenizer.eos_piece
    chunks = InputChunks([TextChunk("The one"), SpecialPieceChunk(eos), TextChunk("last")])
    surrounded = tokenizer([""]).ids[0]
    n_before = len(surrounded) - (surrounded[-1] == tokenizer.piece_to_id(eos))
    whole, first, last = (
        tokenizer([element]).ids[0]
        for element in (chunks, InputChunks([TextChunk("The one")]), "last")
    )
    behind = surrounded[n_before:]
    without = first[: len(first) - len(behind)]
    assert whole == [*without, tokenizer.piece_to_id(eos), *last[n_before:]]


def test_every_piece_has_the_id_that_piece_to_id_says(tokenizer):
    pieces = tokenizer(["The ferry leaves at half past seven"])
    assert [tokenizer.piece_to_id(piece) for piece in pieces.pieces[0]] == pieces.ids[0]
    assert tokenizer.piece_to_id("no such piece") is None


def test_the_eos_piece_is_in_the_vocabulary(tokenizer):
    assert tokenizer.piece_to_id(tokenizer.eos_piece) is not None


def test_a_generator_stops_at_the_tokenizers_eos_piece(tokenizer):
    config = DefaultGenerator(tokenizer, None).default_config
    assert config.eos_id == tokenizer.piece_to_id(tokenizer.eos_piece)


def test_a_generator_of_a_tokenizer_without_eos_piece_has_none():
    for tokenizer in (
        WordPieceTokenizer(vocab={"a": 0}, special_pieces=None),
        ByteBPETokenizer(vocab={"a": 0}, merges=[]),
    ):
        assert DefaultGenerator(tokenizer, None).default_config.eos_id is None


def test_unknown_ids_are_refused_when_decoding(tokenizer):
    for unknown in (-1, 10**6, 2**40):
        with pytest.raises(ValueError, match=f"Unknown piece identifier: {unknown}"):
            tokenizer.decode([[unknown]])


def test_ids_may_be_arrays(tokenizer):
    ids = tokenizer(["The ferry leaves"]).ids
    assert tokenizer.decode(np.array(ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("ids", [[1, 3], [[1.5]], [["1"]], "12"])
def test_what_is_no_batch_of_ids_is_refused(tokenizer, ids):
    with pytest.raises(TypeError, match=r"write \[ids\]|as an integer"):
        tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["a\ud800b", "\ud800" * 5000])
@pytest.mark.parametrize("name", [name for name in KINDS if name != "bert"])
def test_lone_surrogates_are_refused(name, text, legacy_tokenizers):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        legacy_tokenizers[name]([text])


def test_bert_drops_lone_surrogates_with_control_characters(bert):
    assert bert(["a\ud800b"]) == bert(["ab"])


def test_tokenizers_can_be_pickled_and_copied(tokenizer):
    texts = ["The ferry, don't"]
    expected = tokenizer(texts)
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert other(texts) == expected
        assert other.decode(expected.ids) == tokenizer.decode(expected.ids)


def test_each_step_of_the_pipeline_can_be_replaced(bert):
    class Exclaim(PreEncoder):
        def __call__(self, chunks):
            return [InputChunks([*element, TextChunk(" !")]) for element in chunks]

    class KeepLast(PostEncoder):
        def __call__(self, pieces):
            return PiecesWithIds(
                ids=[ids[-1:] for ids in pieces.ids], pieces=[names[-1:] for names in pieces.pieces]
            )

    class Twice(PreDecoder):
        def __call__(self, input):
            return [[*ids, *ids] for ids in input]

    class Shout(PostDecoder):
        def __call__(self, output):
            return [text.upper() for text in output]

    tokenizer = copy.deepcopy(bert)
    tokenizer.normalizer = None
    tokenizer.pre_encoder, tokenizer.post_encoder = Exclaim(), KeepLast()
    tokenizer.pre_decoder, tokenizer.post_decoder = Twice(), Shout()
    pieces = tokenizer(["the last"])
    assert pieces.pieces == [["!"]]
    assert tokenizer.decode([[bert.piece_to_id("the")]]) == ["THE THE"]


@pytest.mark.parametrize(
    ("bos", "eos", "expected"),
    [("<s>", "</s>", "<s>|a|</s>"), (None, "</s>", "a|</s>"), ("<s>", None, "<s>|a")],
)
def test_bos_and_eos_are_added_unless_they_are_none(bos, eos, expected):
    (chunks,) = AddBosEosPreEncoder(bos_piece=bos, eos_piece=eos)([InputChunks([TextChunk("a")])])
    assert "|".join(getattr(chunk, "piece", None) or chunk.text for chunk in chunks) == expected


# Expected values from the definitions of the normal forms (Unicode Standard Annex 15).
@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({}, "É ﬁ", "É ﬁ"),
        ({"lowercase": True}, "ÉA", "éa"),
        ({"strip_accents": True}, "Éçñ", "Ecn"),
        ({"lowercase": True, "strip_accents": True}, "ÅÉ", "ae"),
        ({"utf_normalization": UnicodeNormalization.NFC}, "e\u0301", "\u00e9"),
        ({"utf_normalization": UnicodeNormalization.NFD}, "\u00e9", "e\u0301"),
        ({"utf_normalization": UnicodeNormalization.NFKC}, "ﬁ²", "fi2"),
        ({"utf_normalization": UnicodeNormalization.NFKD}, "ﬁ\u00e9", "fie\u0301"),
        # Hangul decomposes with the accents; the normal form composes it again.
        ({"strip_accents": True, "utf_normalization": UnicodeNormalization.NFC}, "가é", "가e"),
    ],
)
def test_normalizer_rewrites_texts_only(options, text, expected):
    chunks = [InputChunks([TextChunk(text), SpecialPieceChunk("É")])]
    normalized = DefaultNormalizer(**options)(chunks)
    assert normalized == [InputChunks([TextChunk(expected), SpecialPieceChunk("É")])]
