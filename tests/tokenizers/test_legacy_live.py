"""Against transformers and sentencepiece as they run. Equality is exact.

Left out are characters whose treatment depends on the version of Unicode that a library was built
with, and what is documented to differ: the final sigma in lower case, and a block of ideographs
that `tokenizers` misses (U+2B820 to U+2B91F).
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata

import pytest

pytest.importorskip("torch", reason="`make oracle` installs torch and transformers")

import sentencepiece
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import vocabularies as oracles
from tokenizer_texts import SENTENCES, TEXTS
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from curated_transformers.tokenizers import AutoTokenizer
from curated_transformers.tokenizers.legacy import (
    BERTTokenizer,
    CamemBERTTokenizer,
    LlamaTokenizer,
    SentencePieceTokenizer,
    XLMRTokenizer,
)

pytestmark = pytest.mark.slow


def younger_than_the_tables_of_tokenizers():
    """Punctuation, accents and invisible characters that `tokenizers` takes for something else,
    since its tables are of an older Unicode."""
    split, strip = BertPreTokenizer(), BertNormalizer(strip_accents=True, lowercase=False)
    for char in map(chr, range(sys.maxunicode + 1)):
        text, category = f"a{char}a", unicodedata.category(char)
        if category[0] == "P":
            is_old = len(split.pre_tokenize_str(text)) == 3
        elif category in ("Mn", "Cf"):
            is_old = strip.normalize_str(text) == "aa"
        else:
            continue
        if not is_old:
            yield char


YOUNG = frozenset(younger_than_the_tables_of_tokenizers())
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn")).filter(
    lambda char: char != "Σ" and char not in YOUNG and not "\U0002b820" <= char <= "\U0002b91f"
)
RANDOM_TEXTS = st.text(
    st.one_of(
        CHARACTERS,
        st.sampled_from("  \n\t\u00a0'estaÉéßİ今天あا.,-"),
        st.sampled_from(sorted(set("".join(SENTENCES)) - {"Σ"})),
    ),
    max_size=80,
)


def compare_random_texts(encode, expect):
    @settings(max_examples=1500, deadline=None)
    @given(RANDOM_TEXTS)
    def check(text):
        assert encode(text) == expect(text)

    check()


@pytest.mark.parametrize("name", oracles.BERT_OPTIONS)
def test_bert_on_random_texts(name):
    vocab = oracles.read_wordpiece()
    options = oracles.BERT_OPTIONS[name]
    oracle = oracles.hf_bert(dict(vocab), name)
    tokenizer = BERTTokenizer(
        vocab=vocab,
        lowercase=options["do_lower_case"],
        strip_accents=options.get("strip_accents"),
        tokenize_chinese_chars=options.get("tokenize_chinese_chars", True),
    )
    compare_random_texts(
        lambda text: tokenizer([text]).ids[0], lambda text: oracle(text)["input_ids"]
    )


def test_bert_decodes_random_pieces(bert):
    vocab = oracles.read_wordpiece()
    oracle = oracles.hf_bert(dict(vocab), "bert_cased")

    @settings(max_examples=1500, deadline=None)
    @given(st.lists(st.integers(4, len(vocab) - 1), max_size=30))
    def check(ids):
        # transformers keeps the mark of a continuation that begins a text; we do not.
        ids = [vocab["the"], *ids]
        expected = oracle.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        assert bert.decode([ids]) == [expected]

    check()


def test_roberta_on_random_texts(roberta):
    oracle = oracles.hf_roberta(*oracles.read_byte_bpe())
    compare_random_texts(
        lambda text: roberta([text]).ids[0], lambda text: oracle(text)["input_ids"]
    )


def test_roberta_decodes_random_pieces(roberta):
    oracle = oracles.hf_roberta(*oracles.read_byte_bpe())

    @settings(max_examples=1500, deadline=None)
    @given(st.lists(st.integers(3, len(oracles.read_byte_bpe()[0]) - 1), max_size=30))
    def check(ids):
        assert roberta.decode([ids]) == [
            oracle.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ]

    check()


@pytest.fixture(scope="module")
def nfkc_model(tmp_path_factory):
    """A model with the normalization that XLM-R's and CamemBERT's have."""
    path = tmp_path_factory.mktemp("sentencepiece") / "nfkc.model"
    path.write_bytes(oracles.train_sentencepiece(model_type="unigram", vocab_size=600))
    return path


@pytest.mark.parametrize("name", ["unigram.model", "bpe.model", "nfkc"])
def test_sentencepiece_on_random_texts(name, vocabularies, nfkc_model):
    path = nfkc_model if name == "nfkc" else vocabularies / name
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = SentencePieceTokenizer(
        processor=LlamaTokenizer.from_files(model_file=path).processor
    )

    def encode(text):
        pieces = tokenizer([text])
        return pieces.ids[0], pieces.pieces[0], tokenizer.decode(pieces.ids)[0]

    def expect(text):
        ids = oracle.encode(text)
        return ids, oracle.encode(text, out_type=str), oracle.decode(ids)

    compare_random_texts(encode, expect)


@pytest.mark.parametrize(
    ("kind", "name"), [("xlmr", XLMRTokenizer), ("camembert", CamemBERTTokenizer)]
)
def test_sentencepiece_models_number_pieces_as_transformers_does(kind, name, nfkc_model):
    # On ordinary texts; transformers' conversion differs in control characters.
    oracle = oracles.hf_sentencepiece(kind, nfkc_model)
    tokenizer = name.from_files(model_file=nfkc_model)
    assert tokenizer(SENTENCES).ids == oracle(list(SENTENCES))["input_ids"]
    for piece in ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<s>NOTUSED"):
        if piece in oracle.get_vocab():
            assert tokenizer.piece_to_id(piece) == oracle.convert_tokens_to_ids(piece)


def test_llama_splits_and_decodes_as_transformers_does(llama, vocabularies):
    oracle = oracles.hf_sentencepiece("llama", vocabularies / "bpe.model")
    for text in TEXTS:
        if text.startswith(" "):
            continue  # transformers adds no space before a space
        ids = llama([text]).ids[0]
        assert ids[1:] == oracle(text, add_special_tokens=False)["input_ids"]
        for skip in (True, False):
            (decoded,) = llama.decode([ids], skip_special_pieces=skip)
            assert decoded == oracle.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize(
    ("files", "config"),
    [
        (["vocab.txt"], {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
        (["vocab.txt"], {"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
        (
            ["vocab.txt"],
            {"tokenizer_class": "ElectraTokenizer", "do_lower_case": True, "strip_accents": False},
        ),
        (
            ["vocab.txt"],
            {
                "tokenizer_class": "DistilBertTokenizer",
                "do_lower_case": False,
                "tokenize_chinese_chars": False,
            },
        ),
        (["vocab.json", "merges.txt"], {"tokenizer_class": "RobertaTokenizer"}),
        (["sentencepiece.bpe.model"], {"tokenizer_class": "XLMRobertaTokenizer"}),
        (["sentencepiece.bpe.model"], {"tokenizer_class": "CamembertTokenizer"}),
        (
            ["tokenizer.model"],
            {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": True},
        ),
    ],
)
def test_repositories_load_as_in_transformers(files, config, vocabularies, tmp_path):
    sources = {"sentencepiece.bpe.model": "unigram.model", "tokenizer.model": "bpe.model"}
    for name in files:
        shutil.copy(vocabularies / sources.get(name, name), tmp_path / name)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_path(tmp_path)
    pieces = tokenizer(SENTENCES)
    assert pieces.ids == oracle(list(SENTENCES))["input_ids"]
    assert tokenizer.eos_piece == (oracle.eos_token or oracle.sep_token)
