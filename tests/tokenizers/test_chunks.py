from __future__ import annotations

import pytest

from curated_transformers.tokenizers import InputChunks, PiecesWithIds, TextChunk
from curated_transformers.tokenizers import SpecialPieceChunk as Special
from curated_transformers.tokenizers.chunks import MergedInputChunks
from curated_transformers.tokenizers.chunks import MergedSpecialPieceChunk as Merged


@pytest.mark.parametrize(
    ("chunks", "merged"),
    [
        ([], []),
        ([TextChunk("")], [TextChunk("")]),
        ([TextChunk("a"), TextChunk("b")], [TextChunk("ab")]),
        (
            [Special("<s>", after=" "), TextChunk("Hi"), Special("</s>", before=" ")],
            [Merged("<s>"), TextChunk(" Hi "), Merged("</s>")],
        ),
        (
            [Special("a", after=" "), Special("b", before=" ")],
            [Merged("a"), TextChunk("  "), Merged("b")],
        ),
        ([Special("a", after="", before="")], [Merged("a")]),
        ([Special("a", before="x")], [TextChunk("x"), Merged("a")]),
    ],
)
def test_texts_are_joined_around_special_pieces(chunks, merged):
    before = repr(chunks)
    assert InputChunks(chunks).merge_text_chunks() == MergedInputChunks(merged)
    assert repr(chunks) == before


def test_other_elements_are_refused():
    with pytest.raises(ValueError, match="Unknown chunk type: str"):
        InputChunks(["x"]).merge_text_chunks()


def test_padding_is_on_the_side_asked_for_and_false_in_the_mask():
    pieces = PiecesWithIds(ids=[[5, 6, 7], [], [8]], pieces=[["a", "b", "c"], [], ["d"]])
    right = pieces.padded_tensor()
    assert right.tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    assert right.dtype == "int32"
    left = pieces.padded_tensor(padding_id=1, pad_left=True, device="cpu")
    assert left.tolist() == [[5, 6, 7], [1, 1, 1], [1, 1, 8]]
    mask = pieces.attention_mask(pad_left=True)
    assert mask.shape == (3, 1, 1, 3)
    expected = [[True, True, True], [False, False, False], [False, False, True]]
    assert mask.bool_mask.reshape(3, 3).tolist() == expected
    assert pieces.attention_mask().bool_mask.reshape(3, 3).tolist()[2] == [True, False, False]


def test_empty_batch_has_no_tensor():
    pieces = PiecesWithIds(ids=[], pieces=[])
    with pytest.raises(ValueError, match="empty batch"):
        pieces.padded_tensor()
    with pytest.raises(ValueError, match="empty batch"):
        pieces.attention_mask()


def test_batch_of_empty_sequences_has_no_columns():
    assert PiecesWithIds(ids=[[], []], pieces=[[], []]).padded_tensor().shape == (2, 0)


@pytest.mark.parametrize("padding_id", [1.5, "1", None])
def test_a_padding_id_that_is_no_id_is_refused(padding_id):
    with pytest.raises(TypeError, match="interpreted as an integer"):
        PiecesWithIds([[1], [2, 3]], [["a"], ["b", "c"]]).padded_tensor(padding_id=padding_id)
