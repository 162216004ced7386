"""Memory of a GPU, shared with torch both ways. Needs a GPU that torch sees, too."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import small_models

from curated_transformers import Device, Tensor
from curated_transformers.layers import KeyValueCache
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and Device("cuda").is_available()),
        reason="there is no GPU for torch and this package",
    ),
]

TYPES = ["float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool"]
IDS = [[7, 3, 11], [5, 6, 1]]
MASK = [[True, True, True], [False, True, True]]
SIZE = 1 << 22


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = small_models.llama(tmp_path_factory.mktemp("llama"))
    return LlamaCausalLM.from_path(folder, device=torch.device("cuda", index=0))


def busy():
    """Keeps torch's current stream busy for a while."""
    torch.cuda._sleep(50_000_000)


@pytest.fixture(params=["default", "side"])
def stream(request):
    with torch.cuda.stream(torch.cuda.Stream() if request.param == "side" else None):
        yield request.param


@pytest.mark.parametrize("name", TYPES)
def test_tensors_go_to_torch_and_back_without_a_copy(name):
    values = [[1.0, 0, 2], [3, 4, 0]] if "float" in name else [[1, 0, 2], [3, 4, 0]]
    ours = Tensor(values).to(name).to("cuda")
    theirs = torch.from_dlpack(ours)
    assert theirs.dtype == getattr(torch, name)
    assert theirs.device == torch.device("cuda", 0)
    assert theirs.tolist() == ours.tolist()
    back = Tensor(theirs[:, 1:])
    assert (back.device, back.dtype) == ("cuda:0", name)
    assert back.tolist() == theirs[:, 1:].tolist()
    assert torch.from_dlpack(back).data_ptr() == theirs[:, 1:].data_ptr()


def test_what_torch_is_still_writing_is_waited_for(stream):
    theirs = torch.zeros(SIZE, device="cuda")
    busy()
    theirs += 3
    assert np.array_equal(Tensor(theirs).numpy(), np.full(SIZE, 3, np.float32))


def test_torch_waits_for_what_is_still_computed(stream, llama):
    ids = np.random.default_rng(0).integers(0, 50, (8, 48))
    expected = np.asarray(llama(ids).logits)
    for _ in range(5):
        assert np.array_equal(torch.from_dlpack(llama(ids).logits).cpu().numpy(), expected)


def test_memory_that_torch_has_let_go_of_is_used_again_when_torch_is_done(stream):
    """Its use is still in its stream when the tensor goes."""
    for i in range(10):
        ours = Tensor(np.full(SIZE, i, np.float32)).to("cuda")
        theirs = torch.from_dlpack(ours)
        busy()
        total = theirs.sum()
        del ours, theirs
        gc.collect()
        other = Tensor(np.full(SIZE, -1, np.float32)).to("cuda")
        assert total.item() == i * SIZE
        assert other[0].item() == -1


def test_torchs_memory_is_let_go_of_when_our_operations_are_done(llama):
    for i in range(10):
        theirs = torch.full((SIZE,), float(i), device="cuda")
        ours = Tensor(theirs)
        copy = ours.to(copy=True)
        del theirs, ours
        gc.collect()
        torch.full((SIZE,), -1.0, device="cuda")
        assert np.array_equal(copy.numpy(), np.full(SIZE, i, np.float32))


def test_the_models_of_the_usage_page(tmp_path, llama):
    encoder = BERTEncoder.from_path(small_models.bert(tmp_path), device=torch.device("cuda"))
    expected = np.asarray(encoder(IDS, np.array(MASK)).last_hidden_layer_state)
    with torch.no_grad():
        output = encoder(
            input_ids=torch.tensor(IDS, device="cuda"),
            attention_mask=torch.tensor(MASK, device="cuda"),
        )
    hidden = torch.from_dlpack(output.last_hidden_layer_state)
    assert hidden.device.type == "cuda"
    assert np.array_equal(hidden.cpu().numpy(), expected)
    output = llama(torch.tensor(IDS, device="cuda"), store_cache=True)
    caches = [
        KeyValueCache(torch.from_dlpack(one.key).clone(), torch.from_dlpack(one.value).clone())
        for one in output.cache
    ]
    following = [[1], [2]]
    mine, usual = (llama(following, cache=cache).logits for cache in (caches, output.cache))
    assert np.array_equal(mine.numpy(), usual.numpy())


def test_states_go_to_torch_and_come_from_it(llama):
    expected = np.asarray(llama(IDS).logits)
    state = {name: torch.from_dlpack(tensor) for name, tensor in llama.state_dict().items()}
    assert all(tensor.device == torch.device("cuda", 0) for tensor in state.values())
    llama.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    assert np.array_equal(np.asarray(llama(IDS).logits), expected)


def test_torchs_current_device_stays(tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    for current, ours in ((0, 1), (1, 0)):
        with torch.cuda.device(current):
            model = BERTEncoder.from_path(
                small_models.bert(tmp_path / str(current)), device=torch.device("cuda", ours)
            )
            state = model(IDS).last_hidden_layer_state
            assert state.device == torch.device("cuda", ours)
            assert torch.from_dlpack(state).device.index == ours
            state.numpy()
            del state, model
            assert torch.cuda.current_device() == current
            assert torch.zeros(1, device="cuda").device.index == current
