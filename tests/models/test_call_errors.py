"""Calls that are refused, and what the error says."""

from __future__ import annotations

import re

import numpy as np
import pytest
import small_models

from curated_transformers.layers import AttentionMask
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM

IDS = np.array([[7, 3, 11], [5, 6, 8]])
TRUE = np.ones((2, 3), dtype=bool)
KIND = {BERTEncoder: small_models.bert, LlamaCausalLM: small_models.llama}


@pytest.fixture(scope="module", params=KIND, ids=["encoder", "causal_lm"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return request.param.from_path(KIND[request.param](folder, positions=40))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return BERTEncoder.from_path(small_models.bert(tmp_path_factory.mktemp("bert")))


@pytest.mark.parametrize("ids", [3, [1, 2], [[[1]]], [], [[]], np.zeros((0, 3), int), [[], []]])
def test_ids_of_another_rank_or_without_pieces(model, ids):
    with pytest.raises(ValueError, match=r"piece ids must have the shape \[batch, seq\]"):
        model(np.array(ids, dtype=np.int64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, np.uint8, np.int8])
def test_ids_of_another_type(model, dtype):
    with pytest.raises(TypeError, match="piece ids must be int32 or int64, not"):
        model(IDS.astype(dtype))


def test_ragged_ids_are_refused_with_advice(model):
    with pytest.raises(ValueError, match=r"piece_ids must be .*nested lists .*equal lengths"):
        model([[1, 2, 3], [4]])


@pytest.mark.parametrize("value", [50, -1, 2**31, 2**32 + 1, -(2**40)])
@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(model, value, place):
    ids = IDS.copy()
    ids[place] = value
    text = f"piece id {value} at [{place[0]}, {place[1]}] is outside the 50 pieces of the model"
    with pytest.raises(IndexError, match=re.escape(text)):
        model(ids)


@pytest.mark.parametrize("value", [40, -1, 2**33])
def test_a_position_outside_the_table_is_named_with_its_place(encoder, value):
    positions = np.array([[0, 1, 2], [0, value, 2]])
    with pytest.raises(IndexError, match=rf"position {value} at \[1, 1\] is outside the 40 pos"):
        encoder(IDS, positions=positions)


@pytest.mark.parametrize("value", [2, -1])
def test_a_type_outside_the_table_is_named_with_its_place(encoder, value):
    with pytest.raises(IndexError, match=rf"type id {value} at \[0, 2\] is outside the 2 types"):
        encoder(IDS, type_ids=[[0, 0, value], [0, 0, 0]])


@pytest.mark.parametrize("name", ["positions", "type_ids"])
def test_positions_and_types_have_the_shape_of_the_ids(encoder, name):
    with pytest.raises(ValueError, match=r"must have the shape of the piece ids, \[2, 3\]"):
        encoder(IDS, **{name: [[0, 1, 2]]})
    with pytest.raises(TypeError, match="must be int32 or int64, not float32"):
        encoder(IDS, **{name: np.zeros((2, 3))})


def test_sequences_longer_than_the_model(model):
    model(np.ones((1, 40), dtype=int))
    with pytest.raises((IndexError, ValueError), match="40 positions of the model"):
        model(np.ones((1, 41), dtype=int))


def test_only_real_pieces_count_for_the_length(model):
    ids, mask = np.ones((2, 45), dtype=int), np.arange(45)[None] < np.array([[40], [3]])
    assert model(ids, mask).last_hidden_layer_state.shape == (2, 45, 32)


@pytest.mark.parametrize("shape", [(2, 2), (2, 4), (3, 3), (2, 1, 1, 4), (3, 1, 1, 3)])
def test_a_mask_of_another_length_or_batch(model, shape):
    with pytest.raises(
        ValueError, match=r"must cover 2 sequences of 3 pieces \(0 cached and 3 new\)"
    ):
        model(IDS, np.ones(shape, dtype=bool))


@pytest.mark.parametrize("shape", [(3, 1, 3, 3), (2, 3, 3, 3), (2, 1, 2, 3), (2, 1, 3, 4)])
def test_a_mask_by_query_of_another_shape(model, shape):
    with pytest.raises(ValueError, match=r"dimension \d of the attention mask must be 1 or \d"):
        model(IDS, np.ones(shape, dtype=bool))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 3), (), (1, 2, 1, 1, 3)])
def test_a_mask_of_another_rank(model, shape):
    with pytest.raises(ValueError, match="must be a tensor of shape"):
        model(IDS, np.ones(shape, dtype=bool))
    with pytest.raises(ValueError, match="must be a tensor of shape"):
        AttentionMask(np.ones(shape, dtype=bool))


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8])
def test_a_mask_of_another_type(model, dtype):
    with pytest.raises(ValueError, match="attention mask to be of dtype bool, was: "):
        model(IDS, TRUE.astype(dtype))
    with pytest.raises(ValueError, match="attention mask to be of dtype bool, was: "):
        AttentionMask(TRUE.astype(dtype))


def test_ids_have_to_be_given_once(model):
    with pytest.raises(TypeError, match="needs piece_ids"):
        model()
    with pytest.raises(TypeError, match="once"):
        model(IDS, input_ids=IDS)


def test_an_unknown_argument_is_not_swallowed(model):
    with pytest.raises(TypeError, match="token_type_ids"):
        model(IDS, token_type_ids=IDS)


def test_an_encoder_has_no_cache(encoder):
    with pytest.raises(TypeError, match="store_cache"):
        encoder(IDS, store_cache=True)
    with pytest.raises(ValueError, match="no cache"):
        encoder.core.forward(IDS, store_cache=True)


def test_a_decoder_has_no_types(tmp_path):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path))
    with pytest.raises(TypeError, match="type_ids"):
        model(IDS, type_ids=IDS)
    with pytest.raises(ValueError, match="no type embeddings"):
        model.core.forward(IDS, types=IDS)


def test_the_model_works_after_a_refusal(model):
    expected = np.asarray(model(IDS).last_hidden_layer_state)
    for ids, mask in ((IDS + 1000, None), (IDS, TRUE[:1, :2]), (IDS[0], None)):
        with pytest.raises((IndexError, ValueError)):
            model(ids, mask)
        np.testing.assert_array_equal(np.asarray(model(IDS).last_hidden_layer_state), expected)


def test_modules_say_what_they_cannot_do(model):
    assert model.eval() is model
    assert model.train(False) is model
    assert model.to("cpu") is model
    with pytest.raises(NotImplementedError, match="no training mode"):
        model.train()
    with pytest.raises((NotImplementedError, ValueError), match='device "cuda'):
        model.to("cuda:1023")
    assert model.device == "cpu"
