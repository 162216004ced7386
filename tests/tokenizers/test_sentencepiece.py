"""Llama, CamemBERT and XLM-R: numbers of pieces, special pieces, long texts.

How text is split is compared in test_legacy_golden.py. The numbers expected here are those of the
original models' tables.
"""

from __future__ import annotations

import random

import pytest

from curated_transformers.tokenizers import InputChunks, SpecialPieceChunk, TextChunk
from curated_transformers.tokenizers.legacy import (
    CamemBERTTokenizer,
    LlamaTokenizer,
    SentencePieceTokenizer,
    XLMRTokenizer,
    unknown_runs,
)
from curated_transformers.tokenizers.legacy.sentencepiece_tokenizer import read_processor

UNKNOWN = "\ue000"


@pytest.fixture(scope="module")
def unigram(vocabularies):
    return read_processor(vocabularies / "unigram.model")


@pytest.fixture(scope="module")
def bpe(vocabularies):
    return read_processor(vocabularies / "bpe.model")


class Renamed:
    """A processor without some of its special pieces, as models that were trained without have."""

    def __init__(self, processor, **ids):
        self._processor = processor
        self._ids = ids

    def __getattr__(self, name):
        if name in self._ids:
            return lambda: self._ids[name]
        return getattr(self._processor, name)

    def __len__(self):
        return len(self._processor)


def test_plain_sentencepiece_adds_nothing_and_keeps_the_ids(unigram):
    tokenizer = SentencePieceTokenizer(processor=unigram)
    ids, pieces = unigram.encode("The last one")
    batch = tokenizer(["The last one"])
    assert (batch.ids, batch.pieces) == ([ids], [pieces])
    assert tokenizer.decode(batch.ids) == ["The last one"]
    assert tokenizer.eos_piece == "</s>"
    assert tokenizer.piece_to_id("</s>") == 2


@pytest.mark.parametrize(
    ("kind", "special"),
    [
        ("xlmr", {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}),
        (
            "camembert",
            {"<s>NOTUSED": 0, "<pad>": 1, "</s>NOTUSED": 2, "<unk>": 3, "<s>": 5, "</s>": 6},
        ),
    ],
)
def test_special_pieces_have_the_models_ids(kind, special, legacy_tokenizers, unigram):
    tokenizer = legacy_tokenizers[kind]
    assert {piece: tokenizer.piece_to_id(piece) for piece in special} == special
    offset = {"xlmr": 1, "camembert": 4}[kind]
    assert tokenizer.piece_to_id("<mask>") == len(unigram) + offset
    assert tokenizer.piece_to_id(unigram.id_to_piece(7)) == 7 + offset
    chunks = InputChunks([SpecialPieceChunk("<pad>"), SpecialPieceChunk("<mask>")])
    assert tokenizer([chunks]).ids[0][1:-1] == [1, len(unigram) + offset]


@pytest.mark.parametrize(("kind", "n_reserved"), [("xlmr", 1), ("camembert", 4)])
def test_every_id_that_the_model_has_can_be_decoded(kind, n_reserved, legacy_tokenizers, unigram):
    tokenizer = legacy_tokenizers[kind]
    n_ids = len(unigram) + n_reserved + 1  # and the mask
    tokenizer.decode([[piece_id] for piece_id in range(n_ids)])
    with pytest.raises(ValueError, match=f"Unknown piece identifier: {n_ids}"):
        tokenizer.decode([[n_ids]])


@pytest.mark.parametrize("kind", ["xlmr", "camembert"])
def test_padding_decodes_to_nothing_unless_asked(kind, legacy_tokenizers):
    tokenizer = legacy_tokenizers[kind]
    (ids,) = tokenizer(["The last"]).ids
    mask = tokenizer.piece_to_id("<mask>")
    padded = [*ids, 1, 1]
    assert tokenizer.decode([padded]) == ["The last"]
    assert tokenizer.decode([padded], skip_special_pieces=False) == ["The last<pad><pad>"]
    masked = [*ids[:-1], mask, *ids[1:]]
    assert tokenizer.decode([masked], skip_special_pieces=False) == ["The last<mask> The last"]
    assert tokenizer.decode([masked]) == ["The last The last"]


@pytest.mark.parametrize("kind", ["xlmr", "camembert"])
def test_unknown_pieces_keep_their_text_and_decode_to_the_mark(kind, legacy_tokenizers):
    tokenizer = legacy_tokenizers[kind]
    pieces = tokenizer([f"The {UNKNOWN} one"])
    at = pieces.pieces[0].index(UNKNOWN)
    assert pieces.ids[0][at] == 3
    assert tokenizer.decode(pieces.ids) == ["The  \u2047  one"]


def test_each_text_chunk_has_its_own_prefix(llama):
    chunks = InputChunks([TextChunk("The"), SpecialPieceChunk("</s>"), TextChunk("last")])
    whole, first, last = (llama([element]).ids[0] for element in (chunks, "The", "last"))
    assert whole == [*first, 2, *last[1:]]


@pytest.mark.parametrize(
    ("options", "around"),
    [
        ({}, ([1], [])),
        ({"add_bos_piece": False}, ([], [])),
        ({"add_eos_piece": True}, ([1], [2])),
        ({"add_bos_piece": False, "add_eos_piece": True}, ([], [2])),
    ],
)
def test_llama_adds_what_it_is_told_to(options, around, bpe):
    before, behind = around
    tokenizer = LlamaTokenizer(processor=bpe, **options)
    assert tokenizer(["The last"]).ids == [[*before, *bpe.encode("The last")[0], *behind]]


def test_llama_decodes_control_pieces_to_nothing_unless_asked(llama):
    (ids,) = llama(["The last"]).ids
    assert llama.decode([[*ids, 2]]) == ["The last"]
    # As transformers writes it.
    assert llama.decode([[*ids, 2]], skip_special_pieces=False) == ["<s> The last</s>"]


def test_bytes_that_are_not_utf8_decode_to_the_replacement_character(llama):
    first, second = (llama.piece_to_id(f"<0x{byte:02X}>") for byte in "é".encode())
    assert llama.decode([[first, second], [second, first]]) == ["é", "\ufffd\ufffd"]


def test_models_without_pieces_that_are_to_be_added_are_refused(unigram):
    without = Renamed(unigram, bos_id=-1, eos_id=-1)
    with pytest.raises(ValueError, match="no piece that begins a text"):
        LlamaTokenizer(processor=without)
    with pytest.raises(ValueError, match="no piece that ends a text"):
        LlamaTokenizer(processor=without, add_bos_piece=False, add_eos_piece=True)
    assert LlamaTokenizer(processor=without, add_bos_piece=False).eos_piece is None
    with pytest.raises(ValueError, match="must be its first three"):
        XLMRTokenizer(processor=Renamed(unigram, bos_id=3))
    with pytest.raises(ValueError, match=r"doesn't contain the special pieces \['<bos>'\]"):
        CamemBERTTokenizer(processor=unigram, bos_piece="<bos>")


# Long runs of characters that the model lacks: SentencePiece would copy the run for each of them.


def test_cutting_unknown_runs_changes_nothing(unigram, monkeypatch):
    generator = random.Random(5)
    # Known, unknown, unknown but normalized (full width, ligature), combining, space.
    characters = "The last今\ue000\ue001ꙮ\U0001f9ffＦＵﬁe\u0301\u0308\u3000\t"
    n_cut = 0
    for limit in (1, 2, 5):
        monkeypatch.setattr(unknown_runs, "MAX_RUN", limit)
        cutter = unknown_runs.RunCutter(unigram)
        for _ in range(500):
            text = "".join(generator.choice(characters) for _ in range(generator.randrange(50)))
            assert cutter.encode(text) == unigram.encode(text)
            n_cut += len(cutter.parts(text)) > 1
    assert n_cut > 100


def test_a_megabyte_of_unknown_characters_is_one_piece(xlmr):
    text = "\ue000\ue001" * 500_000
    pieces = xlmr([text])
    assert pieces.ids == [[0, xlmr.piece_to_id("▁"), 3, 2]]
    assert pieces.pieces[0][2] == text
