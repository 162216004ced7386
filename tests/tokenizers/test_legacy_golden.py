"""Ids, pieces and decoded texts that transformers and sentencepiece give for the same vocabularies
(`oracles/vocabularies.py`). Equality is exact."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizer_texts import TEXTS

from curated_transformers.tokenizers import AutoTokenizer, Tokenizer
from curated_transformers.tokenizers.legacy import BERTTokenizer

BERT_OPTIONS = {
    "bert_cased": {},
    "bert_uncased": {"lowercase": True, "strip_accents": None},
    "bert_uncased_accents": {"lowercase": True, "strip_accents": False},
    "bert_cased_no_accents": {"strip_accents": True},
    "bert_no_chinese": {"tokenize_chinese_chars": False},
}


@pytest.fixture(scope="module")
def expected(vocabularies):
    return json.loads((vocabularies / "expected.json").read_text("utf-8"))


def check(tokenizer, expected):
    pieces = tokenizer(TEXTS)
    for text, ids, names, *wanted in zip(
        TEXTS, pieces.ids, pieces.pieces, expected["ids"], expected["pieces"], strict=True
    ):
        assert [ids, names] == wanted, text
    assert tokenizer.decode(pieces.ids) == expected["texts"]


@pytest.mark.parametrize("name", BERT_OPTIONS)
def test_bert_splits_and_decodes_as_the_original(name, vocabularies, expected):
    lines = (vocabularies / "vocab.txt").read_text("utf-8").splitlines()
    vocab = {piece: number for number, piece in enumerate(lines)}
    check(BERTTokenizer(vocab=vocab, **BERT_OPTIONS[name]), expected[name])


@pytest.mark.parametrize("name", ["roberta", "llama", "xlmr", "camembert"])
def test_tokenizers_split_and_decode_as_the_originals(name, legacy_tokenizers, expected):
    check(legacy_tokenizers[name], expected[name])


@pytest.mark.real_model
def test_a_real_vocabulary_gives_what_its_tokenizer_json_gives(minilm, tmp_path):
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(minilm / name, tmp_path)
    legacy, tokenizer = AutoTokenizer.from_path(tmp_path), AutoTokenizer.from_path(minilm)
    assert (type(legacy), type(tokenizer)) == (BERTTokenizer, Tokenizer)
    pieces = legacy(TEXTS)
    assert pieces == tokenizer(TEXTS)
    assert legacy.decode(pieces.ids) == tokenizer.decode(pieces.ids)


@pytest.mark.parametrize("name", ["bert", "roberta", "llama", "xlmr", "camembert"])
def test_a_batch_is_its_elements(name, legacy_tokenizers):
    tokenizer = legacy_tokenizers[name]
    assert tokenizer(TEXTS).ids == [tokenizer([text]).ids[0] for text in TEXTS]


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_tokenizers_that_keep_all_text_give_it_back(name, legacy_tokenizers):
    tokenizer = legacy_tokenizers[name]
    assert tokenizer.decode(tokenizer(TEXTS).ids) == list(TEXTS)
