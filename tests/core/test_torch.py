"""torch's own tensors, types and devices. Nothing else needs torch; `make oracle` runs these."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import small_models

from curated_transformers import Device, Tensor
from curated_transformers._core import MappedFile
from curated_transformers.dtype import dtype_name
from curated_transformers.layers import AttentionMask
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

TYPES = ["float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool"]
IDS = [[7, 3, 11], [5, 6, 0]]
MASK = [[True, True, True], [True, True, False]]


@pytest.mark.parametrize("name", TYPES)
def test_tensors_go_to_torch_and_back_without_a_copy(name):
    ours = Tensor([[1.0, 0, 2], [3, 4, 0]] if "float" in name else [[1, 0, 2], [3, 4, 0]]).to(name)
    theirs = torch.from_dlpack(ours)
    assert theirs.dtype == getattr(torch, name)
    assert theirs.tolist() == ours.tolist()
    theirs[0, 1] = 1
    back = Tensor(theirs)
    assert back.dtype == name
    assert ours[0, 1].item() == back[0, 1].item() == 1


@pytest.mark.parametrize("view", [lambda t: t.T, lambda t: t[:, 1::2], lambda t: t[1]])
def test_strided_tensors_of_torch_are_shared(view):
    theirs = view(torch.arange(12, dtype=torch.float32).reshape(3, 4))
    ours = Tensor(theirs)
    theirs += 1
    assert ours.tolist() == theirs.tolist()


def test_strided_tensors_of_ours_are_shared():
    ours = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4))[::2, 1:]
    theirs = torch.from_dlpack(ours)
    assert theirs.tolist() == ours.tolist()
    assert theirs.data_ptr() == ours.numpy().ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_outputs_go_to_torch_without_a_copy(tmp_path, dtype):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path, dtype=dtype))
    state = encoder(IDS).last_hidden_layer_state
    theirs = torch.from_dlpack(state)
    assert theirs.dtype == getattr(torch, dtype)
    assert theirs.shape == (2, 3, 32)
    expected = theirs.float().numpy().copy()
    np.testing.assert_array_equal(state.numpy().astype(np.float32), expected)
    theirs[0, 0, 0] = 42
    assert state[0, 0, 0].item() == 42


def test_an_output_outlives_its_model_in_torch(tmp_path):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path))
    output = encoder(IDS)
    expected = output.last_hidden_layer_state.numpy().copy()
    theirs = torch.from_dlpack(output.last_hidden_layer_state)
    del encoder, output
    gc.collect()
    np.testing.assert_array_equal(theirs.numpy(), expected)


def test_torchs_memory_is_kept_as_long_as_it_is_used():
    theirs = torch.arange(4)
    alive = weakref.ref(theirs.untyped_storage())
    ours = Tensor(theirs)[1:]
    del theirs
    gc.collect()
    assert ours.tolist() == [1, 2, 3]
    del ours
    gc.collect()
    assert alive() is None


def test_mapped_weights_are_not_given_to_who_might_write_to_them(tmp_path):
    np.arange(4, dtype=np.float32).tofile(tmp_path / "weights")
    mapped = MappedFile(tmp_path / "weights").tensor("float32", (4,), 0)
    with pytest.raises(BufferError, match="read-only"):
        torch.utils.dlpack.from_dlpack(mapped.__dlpack__())
    assert torch.from_dlpack(mapped.to(copy=True)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("kind", ["encoder", "causal_lm"])
def test_calls_take_torchs_tensors(tmp_path, dtype, kind):
    model = (
        BERTEncoder.from_path(small_models.bert(tmp_path))
        if kind == "encoder"
        else LlamaCausalLM.from_path(small_models.llama(tmp_path))
    )
    ids, mask = torch.tensor(IDS, dtype=dtype), torch.tensor(MASK)
    expected = np.asarray(model(IDS, np.array(MASK)).last_hidden_layer_state)
    for given in (mask, AttentionMask(mask), mask[:, None, None], mask.T.contiguous().T):
        state = model(ids, given, positions=torch.arange(3).expand(2, 3)).last_hidden_layer_state
        np.testing.assert_array_equal(np.asarray(state), expected)


def test_what_torch_has_and_we_do_not_is_refused():
    for dtype in (torch.float64, torch.int16, torch.complex64):
        with pytest.raises(TypeError, match="DLPack"):
            Tensor(torch.zeros(2, dtype=dtype))
    with pytest.raises((BufferError, RuntimeError), match=r"grad"):
        Tensor(torch.zeros(2, requires_grad=True))


@pytest.mark.parametrize("name", TYPES)
def test_torchs_types_name_ours(name):
    assert dtype_name(getattr(torch, name)) == name
    if "float" in name:
        assert Tensor([1.0]).to(getattr(torch, name)).dtype == name
        assert Tensor([1.0], dtype=getattr(torch, name)).dtype == name


def test_torchs_devices_name_ours(tmp_path):
    assert Device(torch.device("cpu")) == "cpu"
    assert Device(torch.device("cuda", 1)) == "cuda:1"
    assert Device("cpu") == torch.device("cpu")
    assert Tensor([1.0]).to(torch.device("cpu"), torch.float16).dtype == "float16"
    folder = small_models.bert(tmp_path)
    encoder = BERTEncoder.from_path(folder, device=torch.device("cpu"), dtype=torch.float16)
    assert (encoder.device, encoder.dtype) == ("cpu", "float16")


def test_models_run_beside_torch_and_torchs_threads(tmp_path):
    """Two OpenMP runtimes in one process."""
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path))
    expected = np.asarray(encoder(IDS).last_hidden_layer_state)
    left = torch.randn(300, 300)
    for _ in range(20):
        left = torch.tanh(left @ left)
        np.testing.assert_array_equal(np.asarray(encoder(IDS).last_hidden_layer_state), expected)
