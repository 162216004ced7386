"""One row for each sequence, from packed rows: what NumPy makes of the padded hidden states."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import small_models

from curated_transformers.models.bert import BERTEncoder

IDS = [[7, 3, 11, 4, 9], [5, 6, 8, 2, 1], [5, 6, 8, 2, 1], [3, 3, 3, 3, 3]]
MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def result(folder):
    return BERTEncoder.from_path(folder).core.forward(IDS, MASK)


def reference(states, mask, kind):
    pooled = np.zeros((len(states), states.shape[2]))
    for row, (state, real) in enumerate(zip(states.astype(np.float64), mask, strict=True)):
        if real.any():
            rows = state[real]
            pooled[row] = {"mean": rows.mean(0), "cls": rows[0], "max": rows.max(0)}[kind]
    return pooled


@pytest.mark.parametrize("kind", ["mean", "cls", "max"])
@pytest.mark.parametrize("index", [0, 1, -1])
def test_only_real_pieces_are_pooled_and_a_sequence_without_any_is_zero(result, index, kind):
    pooled = result.pooled(index, kind)
    assert pooled.dtype == "float32"
    expected = reference(result.hidden(index).numpy(), MASK, kind)
    # A mean of values below 8 is rounded once to float32.
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=0, atol=1e-6)


def test_a_general_mask_leaves_every_piece_in(folder):
    mask = np.broadcast_to(MASK[:3, None, None, :], (3, 1, 5, 5))
    result = BERTEncoder.from_path(folder).core.forward(IDS[:3], mask)
    states = result.hidden(-1).numpy()
    expected = reference(states, np.ones((3, 5), bool), "mean")
    np.testing.assert_allclose(result.pooled(-1, "mean").numpy(), expected, rtol=0, atol=1e-6)


def test_pooled_is_float32_and_unrounded_in_half_precision(folder):
    result = BERTEncoder.from_path(folder, dtype="bfloat16").core.forward(IDS, MASK)
    pooled = result.pooled(kind="mean", index=-1)
    assert pooled.dtype == "float32"
    assert (pooled.numpy().view(np.uint32) & 0xFFFF).any()  # what bfloat16 would have cut off
    states = result.hidden(-1).to("float32").numpy()
    # Each of the states is rounded to 8 bits on its own, the pooled ones are not.
    expected = reference(states, MASK, "mean")
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=0, atol=np.abs(states).max() / 256)


def test_arguments_that_name_nothing_are_refused(folder, result):
    with pytest.raises(ValueError, match='kind must be "mean", "cls" or "max", was: sum'):
        result.pooled(0, "sum")
    for index in (result.n_hidden, -result.n_hidden - 1):
        with pytest.raises(IndexError):
            result.pooled(index, "mean")
    with pytest.raises(TypeError):
        result.pooled("0", "mean")
    with pytest.raises(TypeError):
        result.pooled(0)
    nothing = BERTEncoder.from_path(folder).core.forward(IDS, MASK, keep="none")
    with pytest.raises(IndexError, match="no hidden states were kept"):
        nothing.pooled(0, "mean")


def test_threads_may_pool_one_result_at_once(result):
    expected = result.pooled(-1, "mean").numpy()
    found = [None] * 4

    def pool(i):
        for _ in range(50):
            found[i] = result.pooled(-1, "mean").numpy()

    threads = [threading.Thread(target=pool, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pooled in found:
        np.testing.assert_array_equal(pooled, expected)
