"""Models on a CUDA device against the values that transformers computed, and against the CPU.

They run where there is such a device: a GPU, or the kernels on the host (`make cuda-host`).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_models
from checkpoint_writers import write_safetensors
from models.comparison import (
    LIMIT,
    assert_close,
    distance,
    golden_values,
    golden_weights,
    load,
    results,
    write_config,
)
from models.variants import GOLDEN, GOLDEN_LONG, GOLDEN_RAGGED, piece_ids, ragged_batch

from curated_transformers import Device, Tensor
from curated_transformers._core import Session
from curated_transformers.models import AutoCausalLM, AutoEncoder
from curated_transformers.models.llama import LlamaCausalLM
from curated_transformers.quantization import BitsAndBytesConfig, Dtype4Bit

pytestmark = pytest.mark.skipif(not Device("cuda").is_available(), reason="there is no CUDA device")


@pytest.fixture(scope="module", params=GOLDEN, ids=str)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def folder(variant, tmp_path_factory):
    made = tmp_path_factory.mktemp("golden")
    write_safetensors(made / "model.safetensors", golden_weights(variant))
    write_config(variant, made)
    return made


@pytest.fixture(scope="module")
def model(variant, folder):
    return load(variant, folder).to("cuda")


def test_a_padded_batch(variant, model):
    ids, mask = ragged_batch(left=False, lengths=GOLDEN_RAGGED)
    output = model(ids, mask)
    assert all(state.device == "cuda:0" for state in output.all_outputs)
    hidden, logits = results(output)
    assert not hidden[:, ~mask].any()
    values = golden_values(variant)
    ours = hidden[:, mask], None if logits is None else logits[mask]
    assert_close(ours, (values["ragged_hidden"], values.get("ragged_logits")))


def test_pieces_in_several_calls(variant, model):
    if not variant.is_decoder:
        pytest.skip("an encoder has no cache")
    ids = piece_ids(1, 1, GOLDEN_LONG)[:, :150]
    whole = results(model(ids))
    parts, start, cache = [], 0, None
    for end in (60, 61, 64, 65, 130, 150):
        output = model(
            ids[:, start:end], np.ones((1, end), dtype=bool), cache=cache, store_cache=True
        )
        parts.append(results(output))
        start, cache = end, output.cache
    hidden = np.concatenate([part[0] for part in parts], axis=2)
    np.testing.assert_allclose(hidden, whole[0], rtol=1e-4, atol=1e-5)


# ---- generation and quantization, beside the CPU ----

N_PIECES = 257
PROMPTS = [
    np.random.default_rng(i).integers(0, N_PIECES, n).tolist()
    for i, n in enumerate((5, 70, 1, 130))
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return small_models.llama(tmp_path_factory.mktemp("llama"), pieces=N_PIECES)


def texts(model, **options):
    session = Session(model.core)
    for row, prompt in enumerate(PROMPTS):
        session.add(prompt, seed=9, row=row, max_pieces=12, **options)
    found = [[] for _ in PROMPTS]
    for number, piece, _ in session.run():
        found[number].append(piece)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.9, "top_k": 20},
        {"temperature": 1.1, "top_p": 0.8, "repetition_penalty": 1.3},
    ],
    ids=["greedy", "drawn", "top-k", "top-p"],
)
def test_texts_are_those_of_the_cpu(llama, options):
    cpu, cuda = LlamaCausalLM.from_path(llama), LlamaCausalLM.from_path(llama, device="cuda")
    assert cuda.device == "cuda:0"
    assert texts(cuda, **options) == texts(cpu, **options)


# Of each type the rounding, which attention adds to a value a few times: to query and weight, and
# to the result of every layer before.
@pytest.mark.parametrize(
    ("dtype", "rounding"), [("float32", 2**-17), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_models_in_16_bits_are_those_of_the_cpu(llama, dtype, rounding):
    """Whole, and in several calls behind a cache: by the tensor cores and, rows alone, without."""
    ids = np.array([PROMPTS[3]])
    cpu, cuda = (
        LlamaCausalLM.from_path(llama, dtype=dtype, device=device) for device in ("cpu", "cuda")
    )
    wanted = np.asarray(cpu(ids).logits, dtype=np.float32)
    parts, start, cache = [], 0, None
    for end in (70, 71, ids.shape[1]):
        mask = np.ones((1, end), dtype=bool)
        output = cuda(ids[:, start:end], mask, cache=cache, store_cache=True)
        parts.append(np.asarray(output.logits, dtype=np.float32))
        start, cache = end, output.cache
    size = np.linalg.norm(wanted, axis=-1)
    for ours in (np.asarray(cuda(ids).logits, dtype=np.float32), np.concatenate(parts, axis=1)):
        assert (np.linalg.norm(ours - wanted, axis=-1) / size).max() < 4 * rounding


# A byte that rounds to its neighbour moves a product by 1/127 of it; floats move by their rounding.
@pytest.mark.parametrize(
    ("config", "bound"),
    [
        (BitsAndBytesConfig.for_8bit(outlier_threshold=6.0), 1e-2),
        (BitsAndBytesConfig.for_8bit(outlier_threshold=0.0), 1e-2),
        (BitsAndBytesConfig.for_4bit(Dtype4Bit.NF4, compute_dtype="float32"), 1e-4),
        (
            BitsAndBytesConfig.for_4bit(
                Dtype4Bit.FP4, compute_dtype="float32", double_quantization=False
            ),
            1e-4,
        ),
        (BitsAndBytesConfig.for_4bit(Dtype4Bit.NF4, compute_dtype="bfloat16"), 4 * 2**-8),
        (BitsAndBytesConfig.for_4bit(Dtype4Bit.FP4, compute_dtype="float16"), 4 * 2**-11),
    ],
    ids=["int8", "int8-0", "nf4", "fp4", "nf4-bfloat16", "fp4-float16"],
)
def test_quantized_models_are_those_of_the_cpu(llama, config, bound):
    ids = np.array([PROMPTS[3]])
    logits = [
        np.asarray(
            LlamaCausalLM.from_path(llama, device=device, quantization_config=config)(ids).logits
        )
        for device in ("cpu", "cuda")
    ]
    size = np.linalg.norm(logits[0], axis=-1)
    assert (np.linalg.norm(logits[1] - logits[0], axis=-1) / size).max() < bound


# ---- half precision, beside transformers ----

SMALL = {"llama": small_models.llama, "gpt_neox": small_models.gpt_neox, "bert": small_models.bert}
SMALL_IDS = np.random.default_rng(5).integers(0, 50, (3, 40))


@pytest.fixture(params=[(name, dtype) for name in SMALL for dtype in ("bfloat16", "float16")])
def half(request, tmp_path):
    """The architecture, its folder, and what f32 makes of its weights, which are stored in half
    precision."""
    name, dtype = request.param
    folder = SMALL[name](tmp_path, dtype=dtype, width=128, positions=64)
    return name, folder, last_results(name, folder, dtype="float32")


def last_results(name, folder, **options):
    """The last hidden states, and logits where there are any."""
    auto = AutoEncoder if name == "bert" else AutoCausalLM
    output = auto.from_path(folder, **options)(SMALL_IDS)
    logits = getattr(output, "logits", None)
    found = [output.last_hidden_layer_state, *([] if logits is None else [logits])]
    return [np.asarray(tensor.to("float32").numpy()) for tensor in found]


def assert_loses_no_more(ours, theirs, exact):
    """Than another library, twice over: roundings differ, and the largest counts."""
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        assert 0 < distance(mine, right) <= 2 * distance(other, right) + LIMIT


#: Distances of transformers 5.24 on a CPU, of hidden states and logits, from its own f32.
LOST_BY_TRANSFORMERS = {
    ("llama", "bfloat16"): (1.00e-2, 1.17e-2),
    ("llama", "float16"): (1.14e-3, 1.22e-3),
    ("gpt_neox", "bfloat16"): (5.92e-3, 6.82e-3),
    ("gpt_neox", "float16"): (7.76e-4, 9.62e-4),
    ("bert", "bfloat16"): (6.74e-3,),
    ("bert", "float16"): (9.03e-4,),
}


def test_half_precision_loses_no_more_than_transformers(half):
    name, folder, exact = half
    dtype = json.loads((folder / "config.json").read_text())["dtype"]
    ours = last_results(name, folder, device="cuda")
    for mine, right, lost in zip(ours, exact, LOST_BY_TRANSFORMERS[name, dtype], strict=True):
        assert 0 < distance(mine, right) <= lost


def test_results_are_as_close_as_those_of_torch_on_the_gpu(half):
    name, folder, exact = half
    single = last_results(name, folder, device="cuda", dtype="float32")
    assert_close_all(single, torch_results(name, folder, "float32"))
    ours = last_results(name, folder, device="cuda")
    dtype = json.loads((folder / "config.json").read_text())["dtype"]
    assert_loses_no_more(ours, torch_results(name, folder, dtype), exact)


def assert_close_all(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert distance(mine, other) <= LIMIT


def torch_results(name, folder, dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    auto = transformers.AutoModel if name == "bert" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder).to(device="cuda", dtype=getattr(torch, dtype)).eval()
    with torch.inference_mode():
        output = model(torch.from_numpy(SMALL_IDS).to("cuda"), output_hidden_states=True)
    found = [output.hidden_states[-1], *([] if name == "bert" else [output.logits])]
    return [tensor.float().cpu().numpy() for tensor in found]


# ---- tensors ----


def test_what_does_not_fit_is_an_error_and_the_device_goes_on(tmp_path):
    """A file with holes, mapped: neither the host nor a disk has to hold it."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    large = Tensor(np.memmap(path, dtype=np.uint8, mode="r"))
    message = r'out of memory on device "cuda:0": cannot allocate \d+ bytes, \d+ of \d+ are free'
    for _ in range(2):
        with pytest.raises(MemoryError, match=message):
            large.to("cuda")
    values = np.arange(5, dtype=np.float32)
    assert np.array_equal(Tensor(values).to("cuda").numpy(), values)


def test_tensors_move():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    there = Tensor(values).to("cuda")
    assert there.device == "cuda:0"
    assert there.shape == (2, 3, 4)
    assert there.to("cuda") is there
    assert np.array_equal(there.numpy(), values)
    assert np.array_equal(there[1, ::-1, 1:3].numpy(), values[1, ::-1, 1:3])
    assert np.array_equal(there[:, 2].contiguous().to("cpu").numpy(), values[:, 2])
    assert there.to("float16").dtype == "float16"
    assert there.to("float16").device == "cuda:0"
    with pytest.raises(BufferError, match="use numpy"):
        memoryview(there)
