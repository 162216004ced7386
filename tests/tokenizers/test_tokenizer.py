from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers as engine
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from curated_transformers import Tensor
from curated_transformers.tokenizers import (
    InputChunks,
    SpecialPieceChunk,
    TextChunk,
    Tokenizer,
)

PIECES = ["<pad>", "<s>", "</s>", "hi", "you", "there", "do", "n't", ",", "<x>"]


def make_engine():
    vocabulary = {piece: index for index, piece in enumerate(PIECES)}
    made = engine.Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(["<pad>", "<s>", "</s>"])
    made.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return made


@pytest.fixture
def folder(tmp_path):
    padded = make_engine()
    padded.enable_padding(length=16)
    padded.enable_truncation(3)
    padded.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "</s>"}, "chat_template": "{{ messages[0].content }}"})
    )
    return tmp_path


@pytest.fixture
def tokenizer(folder):
    return Tokenizer.from_dir(folder)


def test_padding_and_truncation_of_the_file_are_not_used(tokenizer):
    pieces = tokenizer(["hi you there", "hi"])
    assert pieces.ids == [[1, 3, 4, 5, 2], [1, 3, 2]]
    assert pieces.pieces == [["<s>", "hi", "you", "there", "</s>"], ["<s>", "hi", "</s>"]]


def test_an_engine_that_pads_is_copied_not_changed():
    padded = make_engine()
    padded.enable_padding(length=16)
    tokenizer = Tokenizer(tokenizer=padded, config=None, special_tokens_map=None)
    assert tokenizer(["hi"]).ids == [[1, 3, 2]]
    assert padded.padding is not None


def test_chunks_are_encoded_each_with_the_pieces_around_them(tokenizer):
    chunks = InputChunks([SpecialPieceChunk("<x>", after="hi "), TextChunk("you")])
    pieces = tokenizer([chunks, InputChunks([TextChunk("there"), SpecialPieceChunk("</s>")])])
    assert pieces.ids == [[9, 1, 3, 4, 2], [1, 5, 2, 2]]
    assert pieces.pieces[0] == ["<x>", "<s>", "hi", "you", "</s>"]


def test_special_pieces_around_texts_can_be_left_out(tokenizer):
    assert tokenizer.encode(["hi"], add_special_pieces=False).ids == [[3]]
    chunks = InputChunks([SpecialPieceChunk("<s>"), TextChunk("hi")])
    assert tokenizer.encode([chunks], add_special_pieces=False).ids == [[1, 3]]


def test_a_file_without_its_unknown_piece_is_refused(tmp_path):
    engine.Tokenizer(WordLevel({"hi": 0}, unk_token="<unk>")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_path(tmp_path)
    for texts in (["you"], [InputChunks([TextChunk("you")])]):
        with pytest.raises(ValueError, match=r"file is at fault: .*Missing"):
            tokenizer(texts)


def test_unknown_special_piece_is_refused(tokenizer):
    with pytest.raises(ValueError, match="Unknown special piece: <y>"):
        tokenizer([InputChunks([SpecialPieceChunk("<y>")])])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("hi", r"write \[text\]"),
        (["hi", 3, None], "Non-string inputs: NoneType, int"),
        ([InputChunks(), "hi"], "Non-chunk inputs: str"),
        ([TextChunk("hi")], "Non-chunk inputs: TextChunk"),
    ],
)
def test_inputs_of_other_types_are_refused(batch, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        tokenizer(batch)


def test_empty_batch_gives_an_empty_result(tokenizer):
    pieces = tokenizer([])
    assert (pieces.ids, pieces.pieces) == ([], [])
    assert tokenizer.decode([]) == []


def test_generators_are_batches(tokenizer):
    assert tokenizer(text for text in ["hi"]).ids == [[1, 3, 2]]
    assert tokenizer.decode(iter([(1, 3, 2)])) == ["hi"]


def test_decoding_cleans_up_and_drops_unknown_ids(tokenizer):
    assert tokenizer.decode([[1, 6, 7, 8, 3, 99, 2]]) == ["don't, hi"]
    assert tokenizer.decode([[1, 3]], skip_special_pieces=False) == ["<s> hi"]


def test_ids_that_nothing_can_have_are_unknown_too(tokenizer):
    assert tokenizer.decode([[-1, 3, 2**40], [2**32], [-100]]) == ["hi", "", ""]


@pytest.mark.parametrize("convert", [np.array, Tensor, tuple, lambda ids: Tensor(ids).to("int32")])
def test_ids_may_be_arrays(tokenizer, convert):
    assert tokenizer.decode(convert([[1, 3, 4]])) == ["hi you"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([1, 3], r"write \[ids\]"), ([[1.5]], "interpreted as an integer"), ("hi", "as an integer")],
)
def test_what_is_no_batch_of_ids_is_refused(tokenizer, ids, message):
    with pytest.raises(TypeError, match=message):
        tokenizer.decode(ids)


@pytest.mark.parametrize("chunks", [False, True])
def test_texts_that_are_not_unicode_are_refused(tokenizer, chunks):
    texts = ["hi", "a\ud83d"]
    batch = [InputChunks([TextChunk(text)]) for text in texts] if chunks else texts
    with pytest.raises(ValueError, match=r"text 1 is not Unicode: .*surrogates not allowed"):
        tokenizer(batch)


def test_eos_piece_is_that_of_the_map_then_of_the_config(folder, tokenizer):
    assert tokenizer.eos_piece == "</s>"
    assert tokenizer.piece_to_id("</s>") == 2
    assert tokenizer.piece_to_id("nothing") is None
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<x>"}')
    assert Tokenizer.from_dir(folder).eos_piece == "<x>"
    assert Tokenizer.from_json(make_engine().to_str()).eos_piece is None


def test_from_json_takes_texts():
    tokenizer = Tokenizer.from_json(make_engine().to_str(), '{"eos_token": "hi"}', "{}")
    assert tokenizer.eos_piece == "hi"
    with pytest.raises(ValueError, match=r"not a valid tokenizer\.json"):
        Tokenizer.from_json("{}")
    for broken, message in [("[" * 100_000, "not valid JSON"), ("[1]", "not a JSON object")]:
        with pytest.raises(ValueError, match=f"config_json: {message}"):
            Tokenizer.from_json(make_engine().to_str(), broken)
        with pytest.raises(ValueError, match=f"special_tokens_map_json: {message}"):
            Tokenizer.from_json(make_engine().to_str(), "{}", broken)


def test_chat_template_file_comes_before_the_config(folder, tokenizer):
    assert tokenizer.chat_template == "{{ messages[0].content }}"
    (folder / "chat_template.jinja").write_text("from the file")
    assert Tokenizer.from_dir(folder).chat_template == "from the file"


def test_a_repr_counts_the_pieces(tokenizer):
    assert repr(tokenizer) == f"Tokenizer({len(PIECES)} pieces)"


def test_missing_and_broken_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_dir(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_path(tmp_path / "nothing.gguf")
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(OSError, match="Couldn't find a valid config for the tokenizer at"):
        Tokenizer.from_dir(folder)
    for broken in (b"{", b"\xff"):
        (folder / "tokenizer.json").write_bytes(broken)
        with pytest.raises(ValueError, match=r"tokenizer\.json: not a valid tokenizer\.json"):
            Tokenizer.from_dir(folder)
