"""Tensors of a CUDA device: shared with other libraries, given to models and taken from them.

They run where there is such a device: a GPU, or the kernels on the host (`make cuda-host`), whose
plugin writes down what was asked of streams.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import small_models
from core import dlpack_structs as dl

from curated_transformers import Device, Tensor
from curated_transformers._core import Cache
from curated_transformers.layers import KeyValueCache
from curated_transformers.models.bert import BERTEncoder
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.quantization import BitsAndBytesConfig, Dtype4Bit

pytestmark = pytest.mark.skipif(not Device("cuda").is_available(), reason="there is no CUDA device")

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
IDS = np.array([[5, 3, 9, 7], [2, 8, 6, 1]])
GIB = 1 << 30


@pytest.fixture
def there():
    return Tensor(VALUES).to("cuda")


@pytest.fixture
def orders():
    """What was asked of streams since the last call, where the plugin writes it down."""
    plugin = ctypes.CDLL(os.environ.get("CURATED_TRANSFORMERS_CUDA_PLUGIN"))
    if not hasattr(plugin, "ct_host_orders"):
        pytest.skip("only the plugin of the host writes it down")
    plugin.ct_host_orders.restype = ctypes.c_char_p

    def read():
        gc.collect()
        return plugin.ct_host_orders().decode().splitlines()

    read()
    return read


def needs_two():
    if not Device("cuda", 1).is_available():
        pytest.skip("there is one CUDA device")


class Producer:
    """Another library that has the memory of one of our tensors."""

    def __init__(self, tensor, versions=True):
        self.tensor, self.versions = tensor, versions
        self.asked = []

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, **options):
        self.asked.append(options)
        if not self.versions and "max_version" in options:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self.tensor.__dlpack__(**options)


def address(tensor):
    capsule = tensor.__dlpack__(stream=-1)
    return dl.look_into(capsule).tensor.data


# ---- what leaves ----


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_the_capsule_is_of_the_device(there, version):
    assert there.__dlpack_device__() == (dl.CUDA, 0)
    capsule = there[:, ::2].__dlpack__(max_version=version)
    exported = dl.look_into(capsule).tensor
    assert (exported.device_type, exported.device_id) == (dl.CUDA, 0)
    assert exported.shape[:3] == [2, 2, 4]
    assert exported.strides[:3] == [12, 8, 1]


def test_the_consumers_stream_waits_and_is_waited_for(there, orders):
    for stream, name in ((None, 1), (1, 1), (2, 2), (0x7F0011223344, 0x7F0011223344), (-1, -1)):
        managed = dl.consume(there.__dlpack__(stream=stream, max_version=(1, 0)))
        assert orders() == [f"cuda:0 lets wait {name}"]
        dl.delete(managed)
        assert orders() == [f"cuda:0 waits for {name}"]


def test_an_unused_capsule_is_let_go_of_as_well(there, orders):
    capsule = there.__dlpack__()
    del capsule
    assert orders() == ["cuda:0 lets wait 1", "cuda:0 waits for 1"]


def test_the_consumer_keeps_the_memory_and_lets_go_on_any_thread(orders):
    managed = dl.consume(Tensor(VALUES).to("cuda").__dlpack__(max_version=(1, 0)))
    assert "cuda:0 waits for 1" not in orders()
    worker = threading.Thread(target=dl.delete, args=(managed,))
    worker.start()
    worker.join()
    assert orders() == ["cuda:0 waits for 1"]


@pytest.mark.parametrize(
    ("stream", "error"), [(0, ValueError), (-2, ValueError), ("1", TypeError), (1.0, TypeError)]
)
def test_what_is_no_stream_is_refused(there, stream, error):
    with pytest.raises(error, match="stream must be"):
        there.__dlpack__(stream=stream)


def test_numpy_gets_a_copy_on_the_host(there):
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("this NumPy cannot ask for a device")
    assert np.array_equal(np.from_dlpack(there, device="cpu"), VALUES)
    capsule = there.__dlpack__(dl_device=(dl.CPU, 0), max_version=(1, 0))
    managed = dl.look_into(capsule)
    assert managed.flags == dl.IS_COPIED
    assert managed.tensor.device_type == dl.CPU


@pytest.mark.parametrize(
    "options",
    [{"dl_device": (dl.CPU, 0), "copy": False}, {"dl_device": (dl.CUDA, 1)}, {"dl_device": (3, 0)}],
)
def test_other_devices_are_refused(there, options):
    with pytest.raises(BufferError, match=r"of DLPack device \(2, 0\) to DLPack device"):
        there.__dlpack__(**options)


def test_a_copy_is_other_memory_of_the_device(there):
    capsule = there.__dlpack__(copy=True, max_version=(1, 0))
    managed = dl.look_into(capsule)
    assert managed.flags == dl.IS_COPIED
    assert managed.tensor.device_type == dl.CUDA
    assert managed.tensor.data != address(there)
    for view in (there, there[:, 1:, ::-2]):
        copy = view.to(copy=True)
        assert copy.device == "cuda:0"
        assert address(copy) != address(view)
        assert np.array_equal(copy.numpy(), view.numpy())


# ---- what comes in ----


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("versions", [True, False])
def test_a_devices_tensor_is_shared(orders, versions, index):
    producer = Producer(Tensor(VALUES).to(Device("cuda", index))[:, 1:], versions)
    ours = Tensor(producer)
    assert ours.device == f"cuda:{index}"
    assert address(ours) == address(producer.tensor)
    assert np.array_equal(ours.numpy(), VALUES[:, 1:])
    stream = producer.asked[-1]["stream"]
    assert stream > 2
    assert orders()[0] == f"cuda:{index} lets wait {stream}"
    view = ours[0]
    del ours
    assert not any("finishes" in order for order in orders())
    del view  # what we have asked for is done before the producer hears of it
    assert orders() == [f"cuda:{index} finishes", f"cuda:{index} waits for {stream}"]


def test_a_producer_that_lies_about_its_device_is_refused():
    class Liar(dl.Producer):
        def __dlpack_device__(self):
            return dl.CUDA, 0

        def __dlpack__(self, *, stream, **options):
            return super().__dlpack__(**options)

    producer = Liar([1.0])
    with pytest.raises(BufferError, match="number 0 of device type 1"):
        Tensor(producer)
    assert producer.released_by == []


def test_a_device_that_is_not_there_is_named():
    class Far(Producer):
        def __dlpack_device__(self):
            return dl.CUDA, 63

    with pytest.raises(ValueError, match='"cuda:63" does not exist'):
        Tensor(Far(Tensor([1.0])))


def test_an_array_is_a_copy(there):
    assert np.array_equal(np.asarray(there), VALUES)
    with pytest.raises(ValueError, match="without a copy"):
        there.__array__(copy=False)


def test_tensors_stay_where_they_are(there):
    assert Tensor(there).device == "cuda:0"
    half = Tensor(there, dtype="float16")
    assert (half.device, half.dtype) == ("cuda:0", "float16")
    picked = there[[1, 0], :, [0, 2]]
    assert picked.device == "cuda:0"
    assert np.array_equal(picked.numpy(), VALUES[[1, 0], :, [0, 2]])


# ---- models ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_models.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def cpu(folder):
    return LlamaCausalLM.from_path(folder)


@pytest.fixture(scope="module")
def cuda(folder):
    return LlamaCausalLM.from_path(folder, device="cuda")


def logits(output):
    return np.asarray(output.logits)


def test_inputs_may_be_on_the_models_device(cuda):
    mask = np.array([[True] * 4, [False] + [True] * 3])
    expected = logits(cuda(IDS, mask))
    for given in (Tensor(IDS).to("cuda"), Producer(Tensor(IDS.astype(np.int32)).to("cuda"))):
        assert np.array_equal(logits(cuda(given, Tensor(mask).to("cuda"))), expected)


@pytest.mark.parametrize("where", ["cuda:1", "cpu"])
def test_inputs_of_another_device_are_refused(folder, where):
    needs_two()
    model = LlamaCausalLM.from_path(folder, device=where)
    there = Tensor(IDS).to("cuda:0")
    with pytest.raises(
        ValueError, match=f"piece_ids is on device cuda:0, but the model is on {where}"
    ):
        model(there)
    with pytest.raises(ValueError, match="positions is on device cuda:0"):
        model(IDS, positions=there)


def test_outputs_are_shared_from_the_device(cuda):
    output = cuda(IDS)
    for tensor in (output.logits, output.last_hidden_layer_state):
        assert tensor.__dlpack_device__() == (dl.CUDA, 0)
    assert np.array_equal(np.from_dlpack(output.logits, device="cpu"), logits(output))


def test_the_state_is_on_the_device(cuda, cpu):
    state, expected = cuda.state_dict(), cpu.state_dict()
    assert list(state) == list(expected)
    for name, tensor in state.items():
        assert tensor.device == "cuda:0", name
        assert np.array_equal(tensor.numpy(), expected[name].numpy()), name
    matrix = next(name for name, tensor in state.items() if tensor.ndim == 2)
    assert address(state[matrix]) == address(cuda.state_dict()[matrix])
    assert next(cuda.parameters()).device == "cuda:0"


def test_a_state_of_the_device_is_loaded(folder, cuda, cpu, tmp_path):
    changed = {name: Tensor(t.numpy() * 1.5).to("cuda") for name, t in cpu.state_dict().items()}
    on_host = LlamaCausalLM.from_path(folder)
    on_host.load_state_dict(changed)
    on_device = LlamaCausalLM.from_path(folder, device="cuda")
    on_device.load_state_dict({name: Producer(tensor) for name, tensor in changed.items()})
    np.testing.assert_allclose(logits(on_device(IDS)), logits(on_host(IDS)), rtol=1e-4, atol=1e-5)
    on_device.save(tmp_path / "saved")
    again = LlamaCausalLM.from_path(tmp_path / "saved")
    assert np.array_equal(logits(again(IDS)), logits(on_host(IDS)))
    assert np.array_equal(logits(on_device.to("cpu")(IDS)), logits(on_host(IDS)))


def test_quantized_matrices_of_the_state_are_the_checkpoints(folder):
    config = BitsAndBytesConfig.for_4bit(Dtype4Bit.NF4)
    state = LlamaCausalLM.from_path(folder, device="cuda", quantization_config=config).state_dict()
    assert {t.device for t in state.values() if t.dtype == "nf4"} == {Device("cpu")}
    assert {t.device for t in state.values() if t.dtype != "nf4"} == {Device("cuda")}


def test_an_encoders_state_is_on_the_device(tmp_path):
    model = BERTEncoder.from_path(small_models.bert(tmp_path), device="cuda")
    assert {tensor.device for tensor in model.state_dict().values()} == {Device("cuda")}


# ---- caches ----

MASK = np.array([[True] * 67, [False] * 3 + [True] * 30 + [False] * 4 + [True] * 30])
LONG = np.random.default_rng(3).integers(0, 50, (2, 67))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def pair(request, tmp_path_factory):
    made = small_models.llama(tmp_path_factory.mktemp("llama"), positions=80, dtype=request.param)
    return LlamaCausalLM.from_path(made), LlamaCausalLM.from_path(made, device="cuda")


def test_cached_keys_and_values_are_arrays_of_the_device(pair):
    bound = 1e-5 if pair[0].dtype == "float32" else 0.05
    for a, b in zip(*(model(LONG, MASK, store_cache=True).cache for model in pair), strict=True):
        for mine, theirs in ((b.key, a.key), (b.value, a.value)):
            assert mine.device == "cuda:0"
            assert mine.shape == (2, 2, 67, 8)
            assert mine.dtype == theirs.dtype
            np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=bound, atol=bound)
            assert not mine.numpy()[1][:, ~MASK[1]].any()


def test_caches_are_made_of_arrays_of_device_and_host(pair):
    model = pair[1]
    stored = model(LONG, MASK, store_cache=True).cache
    mask = np.concatenate([MASK, np.ones((2, 4), dtype=bool)], axis=1)
    expected = logits(model(IDS, mask, cache=stored))
    for change in (
        lambda tensor: tensor,
        Producer,
        lambda tensor: tensor.numpy(),
        lambda tensor: (
            Tensor(tensor.numpy().swapaxes(0, 1).copy()).to("cuda").numpy().swapaxes(0, 1)
        ),
        lambda tensor: tensor.to("float32"),
    ):
        caches = [KeyValueCache(change(one.key), change(one.value)) for one in stored]
        assert np.array_equal(logits(model(IDS, mask, cache=caches)), expected)
    rows = [one.filter_batch_items(np.array([False, True])) for one in caches]
    assert rows[0].key.device == "cuda:0"
    assert np.array_equal(logits(model(IDS[1:], mask[1:], cache=rows)), expected[1:])


def test_arrays_of_another_device_are_refused(cuda):
    needs_two()
    stored = cuda(IDS, store_cache=True).cache
    keys = [one.key.to("cuda:1") for one in stored]
    with pytest.raises(ValueError, match='layer 0: the keys are on "cuda:1"'):
        Cache(cuda.core, keys, keys)


# ---- memory ----


def test_memory_that_is_not_there(cuda, orders):
    expected = logits(cuda(IDS))
    size = 2 * GIB
    message = rf'device "cuda:0": cannot allocate {size} bytes, \d+ of {GIB} are free'
    with pytest.raises(MemoryError, match=message):
        Tensor(np.zeros(size, dtype=np.uint8)).to("cuda")
    assert np.array_equal(logits(cuda(IDS)), expected)
    assert np.array_equal(Tensor(VALUES).to("cuda").numpy(), VALUES)


def test_a_model_that_does_not_fit_leaves_the_one_before(folder, orders):
    model = LlamaCausalLM.from_path(folder, device="cuda")
    expected = logits(model(IDS))
    state = dict(model.state_dict())
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    state[name] = Tensor(np.zeros((2, GIB // 4), dtype=np.float32))
    with pytest.raises(MemoryError, match=r"\d+ of \d+ are free"):
        model.load_state_dict(state)
    assert np.array_equal(logits(model(IDS)), expected)


def test_spare_memory_is_given_back(orders):
    Device("cuda:0").empty_cache()
    assert orders() == ["cuda:0 trim"]
    Device("cpu").empty_cache()
    with pytest.raises(ValueError, match='"cuda:63" does not exist'):
        Device("cuda:63").empty_cache()


def test_threads_that_read_results_beside_calls_do_not_wait_for_each_other(folder):
    """A call looks for signals while it has the device, for which it needs the GIL."""
    code = f"""
import threading
import numpy as np
from curated_transformers import Tensor
from curated_transformers.models.llama import LlamaCausalLM
model = LlamaCausalLM.from_path({str(folder)!r}, device="cuda")
there = Tensor(np.arange(8.0)).to("cuda")
def call():
    for _ in range(10):
        model([[1, 2, 3]])
workers = [threading.Thread(target=call) for _ in range(2)]
for worker in workers:
    worker.start()
while any(worker.is_alive() for worker in workers):
    there.numpy()
    there.to("float16").to("cpu")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
