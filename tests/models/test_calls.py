"""Calls: every way of saying the same gives the same, masked places are zero, and a float64
statement of the encoder knows what masks mean."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import small_models

from curated_transformers import Tensor
from curated_transformers.checkpoint import load_checkpoint
from curated_transformers.layers import AttentionMask
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM, LlamaDecoder

# f32 sums in another order differ by a few roundings of 6e-8 at values of about 1 to 5.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
IDS = [[7, 3, 11, 4, 9], [5, 6, 8, 2, 1]]
WIDTH, HEADS = 32, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(folder):
    return BERTEncoder.from_path(folder)


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory):
    return LlamaCausalLM.from_path(small_models.llama(tmp_path_factory.mktemp("llama")))


def last(output):
    return np.asarray(output.last_hidden_layer_state)


# ---- the oracle ----


def bert_states(folder, ids, mask, positions=None, types=None):
    """Hidden states in float64; mask [batch, 1 | heads, 1 | queries, keys]."""
    w = {
        name: Tensor(tensor).numpy().astype(np.float64)
        for name, tensor in load_checkpoint(folder).items()
    }
    ids = np.asarray(ids)

    def linear(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def heads(x):
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    positions = np.arange(ids.shape[1])[None] if positions is None else np.asarray(positions)
    types = np.zeros_like(ids) if types is None else np.asarray(types)
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][positions]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][types], "embeddings.LayerNorm")
    states = [x]
    for layer in range(2):
        p = f"encoder.layer.{layer}."
        q, k, v = (heads(linear(x, f"{p}attention.self.{n}")) for n in ("query", "key", "value"))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(WIDTH // HEADS)
        scores = np.where(mask, scores, np.finfo(np.float32).min)
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask.any(-1, keepdims=True)
        attended = weights / np.maximum(weights.sum(-1, keepdims=True), 1) @ v
        attended = attended.transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(
            x + linear(attended, p + "attention.output.dense"), p + "attention.output.LayerNorm"
        )
        inner = linear(x, p + "intermediate.dense")
        inner = 0.5 * inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + linear(inner, p + "output.dense"), p + "output.LayerNorm")
        states.append(x)
    return states


MASKS = {
    "none": np.ones((2, 5), bool),
    "right padding": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool),
    "left padding": np.array([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], bool),
    "holes": np.array([[1, 0, 1, 0, 1], [0, 1, 0, 0, 1]], bool),
    "one piece left": np.array([[0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_padding_masks_mean_what_the_formula_says(encoder, folder, name):
    mask = MASKS[name]
    output = encoder(IDS, mask)
    expected = bert_states(folder, IDS, mask[:, None, None, :])
    for state, right in zip(output.all_outputs, expected, strict=True):
        np.testing.assert_allclose(np.asarray(state)[mask], right[mask], **CLOSE)
        assert not np.asarray(state)[~mask].any()


def random_mask(*shape):
    mask = np.random.default_rng(3).random(shape) < 0.6
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("shape", [(2, 1, 5, 5), (2, 4, 5, 5), (1, 4, 5, 5), (2, 4, 1, 5)])
def test_masks_by_query_and_head_mean_what_the_formula_says(encoder, folder, shape):
    mask = random_mask(*shape)
    expected = bert_states(folder, IDS, mask)
    for state, right in zip(encoder(IDS, mask).all_outputs, expected, strict=True):
        np.testing.assert_allclose(np.asarray(state), right, **CLOSE)


def test_a_query_without_keys_attends_to_nothing(encoder, folder):
    mask = np.ones((2, 1, 5, 5), bool)
    mask[0, 0, 2] = False
    np.testing.assert_allclose(
        last(encoder(IDS, mask)), bert_states(folder, IDS, mask)[-1], **CLOSE
    )


def test_positions_and_types_are_looked_up(encoder, folder):
    positions, types = [[9, 0, 3, 2, 39], [4, 4, 4, 4, 4]], [[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]]
    expected = bert_states(folder, IDS, np.ones((2, 1, 1, 5), bool), positions, types)
    output = encoder(IDS, positions=positions, type_ids=types)
    np.testing.assert_allclose(last(output), expected[-1], **CLOSE)


# ---- many ways to say the same ----


@pytest.mark.parametrize(
    "ids",
    [
        np.array(IDS, dtype=np.int32),
        np.array(IDS, dtype=np.int64),
        np.array(IDS, dtype=">i4"),
        np.array(IDS, dtype=np.int16),
        np.asfortranarray(IDS),
        np.array(IDS)[::-1][::-1],
        np.repeat(IDS, 2, axis=1)[:, ::2],
        Tensor(IDS),
        Tensor(IDS).to("int32"),
        tuple(map(tuple, IDS)),
        [np.array(row) for row in IDS],
    ],
)
def test_ids_may_come_in_any_form(encoder, ids):
    np.testing.assert_array_equal(last(encoder(ids)), last(encoder(IDS)))


@pytest.mark.parametrize(
    "form",
    [
        lambda m: m,
        lambda m: m.tolist(),
        lambda m: Tensor(m),
        lambda m: AttentionMask(m),
        lambda m: AttentionMask(Tensor(m.tolist())),
        lambda m: m[:, None, None, :],
        lambda m: np.asfortranarray(m),
        lambda m: np.repeat(m, 3, axis=1)[:, ::3],
    ],
)
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_may_come_in_any_form(encoder, causal_lm, form, name):
    for model in (encoder, causal_lm):
        expected = last(model(IDS, MASKS[name]))
        np.testing.assert_array_equal(last(model(IDS, form(MASKS[name]))), expected)


def test_one_mask_serves_the_whole_batch(encoder):
    one = np.array([[1, 1, 0, 1, 0]], bool)
    expected = last(encoder(IDS, np.repeat(one, 2, axis=0)))
    np.testing.assert_array_equal(last(encoder(IDS, one)), expected)


def test_names_and_forward_are_synonyms(encoder, causal_lm):
    mask = MASKS["right padding"]
    expected = last(encoder(IDS, mask))
    for output in (
        encoder.forward(IDS, mask),
        encoder(piece_ids=IDS, attention_mask=mask),
        encoder(input_ids=IDS, attention_mask=mask),
    ):
        np.testing.assert_array_equal(last(output), expected)
    np.testing.assert_array_equal(last(causal_lm(input_ids=IDS)), last(causal_lm(IDS)))


def test_inputs_are_not_changed(encoder):
    ids, mask = np.array(IDS), MASKS["holes"].copy()
    encoder(ids, mask)
    np.testing.assert_array_equal(ids, IDS)
    np.testing.assert_array_equal(mask, MASKS["holes"])


# ---- padding and company change nothing ----


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("left", [True, False])
def test_a_row_of_a_padded_batch_is_the_row_alone(encoder, causal_lm, length, left):
    ids = np.zeros((3, 5), dtype=np.int64)
    mask = np.zeros((3, 5), dtype=bool)
    rows = [[7, 3, 11, 4, 9][:length], [5, 6, 8, 2], [12, 13, 14, 15, 16]]
    for i, row in enumerate(rows):
        place = slice(5 - len(row), 5) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, True
    positions = np.maximum(mask.cumsum(axis=1) - 1, -1)  # -1 stands before the first real piece
    for model in (encoder, causal_lm):
        states = last(model(ids, mask, positions=positions))
        for i, row in enumerate(rows):
            np.testing.assert_allclose(states[i, mask[i]], last(model([row]))[0], **CLOSE)
        assert not states[~mask].any()


def test_ids_at_masked_places_are_not_looked_at(encoder, causal_lm):
    wild = np.array(IDS)
    wild[0, 3:] = [-1, 10**12]
    mask = MASKS["right padding"]
    for model in (encoder, causal_lm):
        np.testing.assert_array_equal(last(model(wild, mask)), last(model(IDS, mask)))


def test_a_row_without_any_piece_is_zero(encoder, causal_lm):
    mask = np.array([[0] * 5, [1] * 5], bool)
    for model in (encoder, causal_lm):
        states = last(model(IDS, mask))
        assert not states[0].any()
        np.testing.assert_allclose(states[1], last(model(IDS[1:]))[0], **CLOSE)
    assert not np.asarray(causal_lm(IDS, mask).logits)[0].any()


def test_a_batch_without_any_piece_is_zero(encoder, causal_lm):
    mask = np.zeros((2, 5), bool)
    for model in (encoder, causal_lm):
        output = model(IDS, mask)
        assert last(output).shape == (2, 5, WIDTH)
        assert not any(np.asarray(state).any() for state in output.all_outputs)
    assert np.asarray(causal_lm(IDS, mask).logits).shape == (2, 5, 50)


def test_a_later_piece_changes_nothing_before_it_in_a_decoder(causal_lm):
    whole, part = last(causal_lm(IDS)), last(causal_lm(np.array(IDS)[:, :3]))
    np.testing.assert_allclose(whole[:, :3], part, **CLOSE)


# ---- outputs ----


def test_outputs_have_the_documented_shapes(encoder, causal_lm, tmp_path):
    output = causal_lm(IDS)
    assert output.logits.shape == (2, 5, 50)
    assert output.cache is None
    for out in (output, encoder(IDS)):
        assert len(out.all_outputs) == 3
        assert [state.shape for state in out.all_hidden_layer_states] == [(2, 5, WIDTH)] * 2
        assert out.embedding_layer is out.all_outputs[0]
        assert out.last_hidden_layer_state is out.all_outputs[-1]
        assert out.hidden_layer_states(1) is out.all_outputs[2]
        for index in (-1, 2):
            with pytest.raises(ValueError, match=rf"invalid layer index \({index}\)"):
                out.hidden_layer_states(index)
    decoder = LlamaDecoder.from_path(small_models.llama(tmp_path))
    np.testing.assert_array_equal(last(decoder(IDS)), last(output))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda output: pickle.loads(pickle.dumps(output))]
)
def test_outputs_are_copied_and_pickled(encoder, causal_lm, duplicate):
    output = encoder(IDS)
    for state, other in zip(output.all_outputs, duplicate(output).all_outputs, strict=True):
        np.testing.assert_array_equal(state, other)
    output = causal_lm(IDS, store_cache=True)
    other = duplicate(output)
    np.testing.assert_array_equal(last(other), last(output))
    np.testing.assert_array_equal(other.logits, output.logits)
    np.testing.assert_array_equal(other.cache[0].key, output.cache[0].key)


def test_a_repr_of_an_output_says_what_it_holds(encoder):
    assert repr(encoder(IDS)) == "ModelOutput(all_outputs=<3 hidden states>)"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_outputs_have_the_models_dtype(tmp_path, dtype):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path, dtype=dtype))
    output = model(IDS, MASKS["left padding"], store_cache=True)
    assert (model.dtype, output.logits.dtype) == (dtype, dtype)
    assert {state.dtype for state in output.all_outputs} == {dtype}
    assert (output.cache[0].key.dtype, output.cache[1].value.dtype) == (dtype, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_asarray_of_an_output_copies_nothing(tmp_path, dtype):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path, dtype=dtype))
    output = encoder(IDS)
    first, second = last(output), np.from_dlpack(output.last_hidden_layer_state)
    assert first.dtype == dtype
    assert np.shares_memory(first, second)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_far_positions_keep_their_precision_in_half_precision_models(tmp_path, dtype):
    """Rotary embeddings see only the distance, so that the same pieces far away give the same
    states. A table of angles in half precision would know position 3000 to within 2 or 16."""
    model = LlamaDecoder.from_path(small_models.llama(tmp_path, dtype=dtype))
    near = np.broadcast_to(np.arange(len(IDS[0])), np.shape(IDS))
    expected = np.asarray(model(IDS, positions=near).last_hidden_layer_state, dtype=np.float32)
    for distance in (500, 600, 3000):
        far = np.asarray(model(IDS, positions=near + distance).last_hidden_layer_state, np.float32)
        np.testing.assert_allclose(far, expected, rtol=0, atol=0.02)
