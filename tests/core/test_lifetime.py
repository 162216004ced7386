"""Who keeps memory alive, and for how long."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import numpy as np
import pytest
import small_models

from curated_transformers import Tensor
from curated_transformers._core import MappedFile
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM


class Array(np.ndarray):
    """An array that weak references can point to, made to tell when it is gone."""


def watched(n=4):
    array = np.arange(n, dtype=np.float32).view(Array)
    return array, weakref.ref(array)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t,
        lambda t: t[1:],
        lambda t: t[::-2][0],
        lambda t: t.reshape(2, 2)[1],
        lambda t: t.numpy()[1:],
        lambda t: np.asarray(t),
        lambda t: memoryview(t)[1:],
        lambda t: np.from_dlpack(t),
        lambda t: list(t)[2],
        lambda t: t.__dlpack__(),
    ],
)
def test_every_view_keeps_the_array_and_the_last_one_lets_it_go(view):
    array, alive = watched()
    kept = view(Tensor(array))
    del array
    gc.collect()
    assert alive() is not None
    del kept
    assert alive() is None


def test_an_array_is_let_go_on_whatever_thread_drops_the_last_view():
    array, alive = watched()
    held = [Tensor(array)[1:]]
    del array
    worker = threading.Thread(target=held.clear)
    worker.start()
    worker.join()
    assert alive() is None


def test_an_array_that_had_to_be_converted_is_not_kept():
    array = np.arange(4, dtype=np.float64).view(Array)
    alive = weakref.ref(array)
    tensor = Tensor(array)
    del array
    assert alive() is None
    assert tensor.tolist() == [0, 1, 2, 3]


def test_a_cycle_through_an_array_is_collected():
    class Holder:
        pass

    holder, alive = Holder(), None
    array, alive = watched()
    array.back = holder
    holder.tensor_view = array
    del array, holder
    gc.collect()
    assert alive() is None


def test_arguments_of_a_call_are_not_kept(tmp_path):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path))
    ids = np.array([[1, 2, 3]])
    mask = np.ones((1, 3), dtype=bool)
    before = sys.getrefcount(ids), sys.getrefcount(mask)
    output = model(ids, mask, store_cache=True)
    assert (sys.getrefcount(ids), sys.getrefcount(mask)) == before
    with pytest.raises(ValueError, match="must cover"):
        model(ids, mask[:, :2])
    with pytest.raises(IndexError):
        model(ids + 1000, mask)
    assert (sys.getrefcount(ids), sys.getrefcount(mask)) == before
    del output


def test_outputs_outlive_the_model_and_each_other(tmp_path):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path))
    output = encoder([[1, 2, 3]])
    expected = [state.numpy().copy() for state in output.all_outputs]
    # One read before the model goes, one after.
    first = output.last_hidden_layer_state
    del encoder
    gc.collect()
    later = output.hidden_layer_states(0).numpy()[0, 1:]
    del output
    gc.collect()
    np.testing.assert_array_equal(first.numpy(), expected[-1])
    np.testing.assert_array_equal(later, expected[1][0, 1:])


def test_a_cache_outlives_its_model(tmp_path):
    model = LlamaCausalLM.from_path(small_models.llama(tmp_path))
    cache = model([[1, 2, 3]], store_cache=True).cache
    expected = cache[1].key.numpy().copy()
    del model
    gc.collect()
    np.testing.assert_array_equal(cache[1].key.numpy(), expected)


def test_weights_may_be_deleted_while_they_are_used(tmp_path):
    folder = small_models.llama(tmp_path)
    model = LlamaCausalLM.from_path(folder)
    expected = model([[1, 2, 3]]).logits.numpy()
    (folder / "model.safetensors").unlink()
    np.testing.assert_array_equal(model([[1, 2, 3]]).logits.numpy(), expected)


def test_tensors_of_a_mapped_file_outlive_it(tmp_path):
    np.arange(4, dtype=np.float32).tofile(tmp_path / "weights")
    file = MappedFile(tmp_path / "weights")
    tensor = file.tensor("float32", (2,), 8)
    del file
    gc.collect()
    assert tensor.tolist() == [2, 3]


def test_nothing_is_leaked_by_conversions_and_refusals():
    """Reference counts of what is handed in stay, also where an error is raised."""
    array = np.arange(4, dtype=np.float32)
    name, dtype = "nonsense name", np.dtype("f2")
    counted = (array, name, dtype, Tensor(array).dtype, None, Tensor)
    before = [sys.getrefcount(one) for one in counted]
    for _ in range(50):
        tensor = Tensor(array)
        repr(tensor), tensor.tolist(), tensor.to(dtype), tensor[[0, 1]], tensor[None]
        tensor.__array__(dtype), tensor.__array__("f4", copy=True), memoryview(tensor)
        tensor.__dlpack__(), tensor.__dlpack__(max_version=(1, 0), copy=True), tensor.__reduce__()
        for refused in (
            lambda t: t.to(name),
            lambda t: t[name],
            lambda t: t[9],
            lambda t: t.reshape(3),
            lambda t: t.__array__(name),
            lambda t: t.__array__("f8", copy=False),
            lambda t: t.__dlpack__(dl_device=(2, 0)),
            lambda t: t.__dlpack__(max_version=name),
            lambda t: Tensor([t, name]),
        ):
            with pytest.raises((TypeError, ValueError, IndexError, BufferError)):
                refused(tensor)
        del tensor, refused
    gc.collect()
    after = [sys.getrefcount(one) for one in counted]
    assert after[:3] == before[:3]
    # The others are in use elsewhere, too; 50 rounds of a leak would show.
    assert all(abs(b - a) < 40 for a, b in zip(before, after, strict=True)), (before, after)
