"""The small vocabularies of tests/golden/tokenizers, which `oracles/vocabularies.py` made."""

from __future__ import annotations

from pathlib import Path

import pytest

from curated_transformers.tokenizers.legacy import (
    BERTTokenizer,
    CamemBERTTokenizer,
    LlamaTokenizer,
    RoBERTaTokenizer,
    XLMRTokenizer,
)

FOLDER = Path(__file__).parent.parent / "golden" / "tokenizers"


@pytest.fixture(scope="session")
def vocabularies():
    return FOLDER


@pytest.fixture(scope="session")
def bert():
    return BERTTokenizer.from_files(vocab_file=FOLDER / "vocab.txt")


@pytest.fixture(scope="session")
def roberta():
    return RoBERTaTokenizer.from_files(
        vocab_file=FOLDER / "vocab.json", merges_file=FOLDER / "merges.txt"
    )


@pytest.fixture(scope="session")
def llama():
    return LlamaTokenizer.from_files(model_file=FOLDER / "bpe.model")


@pytest.fixture(scope="session")
def xlmr():
    return XLMRTokenizer.from_files(model_file=FOLDER / "unigram.model")


@pytest.fixture(scope="session")
def camembert():
    return CamemBERTTokenizer.from_files(model_file=FOLDER / "unigram.model")


@pytest.fixture(scope="session")
def legacy_tokenizers(bert, roberta, llama, xlmr, camembert):
    return {
        "bert": bert,
        "roberta": roberta,
        "llama": llama,
        "xlmr": xlmr,
        "camembert": camembert,
    }
