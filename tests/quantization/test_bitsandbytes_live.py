"""Against bitsandbytes and transformers as they run, on the CPU (`make oracle`).

bitsandbytes multiplies the sums of bytes by 6.200124e-05 on a CPU, a slip for 6.200012e-05, that is
1/127**2: the scales of its inputs are corrected by that, so that the next layer's bytes are ours.
Where two results differ in their last bits, a byte now and then is its neighbour.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

# Before bitsandbytes comes: compiled, some of its functions round otherwise.
os.environ["TORCH_COMPILE_DISABLE"] = "1"
pytest.importorskip("bitsandbytes", reason="`make oracle` installs torch and bitsandbytes")

import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear8bitLt
from models.comparison import LIMIT, assert_close, distance, load, results
from models.variants import VARIANTS, piece_ids
from oracles.bitsandbytes_formats import int8_product, quantize_int8
from oracles.random_models import build, model_class, run
from transformers import AutoModel, AutoModelForCausalLM
from transformers import BitsAndBytesConfig as TransformersConfig

from curated_transformers import _core
from curated_transformers.quantization.bnb import BitsAndBytesConfig

pytestmark = pytest.mark.slow
SLIP = 6.200124e-05 * 127**2
IDS = piece_ids(3, 1, 40)
# A threshold that many inputs of these models are beyond.
THRESHOLD = 2.0
OPTIONS = {
    "int8": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "int8-outliers": {"load_in_8bit": True, "llm_int8_threshold": THRESHOLD},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4-nested": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "fp4-nested": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": True,
    },
}
CONFIGS = {
    "int8": BitsAndBytesConfig.for_8bit(0.0),
    "int8-outliers": BitsAndBytesConfig.for_8bit(THRESHOLD),
    "nf4": BitsAndBytesConfig.for_4bit("nf4", "float32", double_quantization=False),
    "fp4": BitsAndBytesConfig.for_4bit("fp4", "float32", double_quantization=False),
    "nf4-nested": BitsAndBytesConfig.for_4bit("nf4", "float32"),
    "fp4-nested": BitsAndBytesConfig.for_4bit("fp4", "float32"),
}
KINDS = pytest.mark.parametrize("kind", OPTIONS)
FIRST = {}
for variant in VARIANTS:
    if variant.golden:
        FIRST.setdefault(variant.architecture, variant)
# transformers quantizes modules of torch's own class alone, and Falcon's have another.
FALCON = FIRST.pop("falcon")


@pytest.fixture(autouse=True)
def one_thread(caplog):
    caplog.set_level("ERROR", "bitsandbytes")  # it warns of each product
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_matrix(seed, *shape, dtype=torch.float16):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values).to(dtype)


# Matrices.


@pytest.mark.parametrize("shape", [(64, 320), (7, 200), (3, 2), (256, 1024)])
@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_four_bits_have_the_values_of_bitsandbytes(format, shape):
    matrix = random_matrix(1, *shape)
    packed, state = functional.quantize_4bit(matrix, quant_type=format, blocksize=64)
    ours = _core.quantize(matrix, format)
    np.testing.assert_array_equal(ours.scales["absmax"].numpy(), state.absmax.numpy())
    same = np.asarray(ours.codes) == packed.numpy()[:, 0]
    if format == "nf4":
        assert same.all()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        state.dtype = dtype
        expected = functional.dequantize_4bit(packed, state).float().numpy()
        found = ours.to(dtype=dtype).to(dtype="float32").numpy()
        if format == "nf4":
            np.testing.assert_array_equal(found, expected)
        else:  # values in the middle of two, about one in 100000
            assert (found != expected).mean() < 1e-4


@pytest.mark.parametrize("format", ["nf4", "fp4"])
def test_what_bitsandbytes_nests_is_restored_bit_for_bit(format):
    matrix = random_matrix(2, 256, 320)
    packed, state = functional.quantize_4bit(
        matrix, quant_type=format, blocksize=64, compress_statistics=True
    )
    ours = _core.scaled_tensor(
        packed.flatten(),
        format,
        [256, 320],
        state.absmax,
        64,
        nested_absmax=state.state2.absmax,
        nested_map=state.state2.code,
        nested_offset=state.offset.item(),
    )
    state.dtype = torch.float32
    expected = functional.dequantize_4bit(packed, state).numpy()
    np.testing.assert_array_equal(ours.numpy(), expected)
    nested = _core.quantize(matrix, format, nested=True)
    assert nested.scales["nested_offset"] == pytest.approx(state.offset.item(), rel=3e-7)
    away = nested.scales["absmax"].numpy().astype(int) - state.absmax.numpy()
    assert (away != 0).mean() < 0.01  # it looks them up in bins


def test_eight_bits_have_the_bits_of_bitsandbytes():
    matrix = random_matrix(3, 300, 256)
    matrix[5] = 0
    codes, absmax, _ = functional.int8_vectorwise_quant(matrix.clone())
    ours = _core.quantize(matrix, "llm_int8")
    np.testing.assert_array_equal(np.asarray(ours.codes), codes.numpy())
    np.testing.assert_array_equal(ours.scales["absmax"].numpy(), absmax.numpy())


@pytest.mark.parametrize("threshold", [0.0, THRESHOLD, 6.0])
def test_the_formula_of_a_product_is_that_of_bitsandbytes_for_one_row(threshold):
    """`test_products.py` compares ours with the formula."""
    matrix, x = random_matrix(4, 96, 256), random_matrix(5, 8, 256, dtype=torch.float32)
    x[2, 7], x[3, ::50], x[4] = 70, -9, 0
    layer = Linear8bitLt(256, 96, bias=False, has_fp16_weights=False, threshold=threshold)
    layer.load_state_dict({"weight": matrix})
    layer = layer.to("cpu").eval()
    with torch.no_grad():
        expected = torch.cat([layer(row[None]) for row in x]).numpy()
    ours = int8_product(x.numpy(), *quantize_int8(matrix.float().numpy()), threshold)
    assert distance(ours, expected) < 3e-5  # the slip


# Models.


def theirs_of(variant, folder, kind):
    """transformers' quantized model of a random checkpoint, with weights that float16 holds."""
    build(variant).half().save_pretrained(folder / "f16")
    return model_class(variant).from_pretrained(
        folder / "f16",
        quantization_config=TransformersConfig(
            **OPTIONS[kind], bnb_4bit_compute_dtype=torch.float32
        ),
        device_map="cpu",
        dtype=torch.float32,
    )


@pytest.fixture
def corrected(monkeypatch):
    """From now on the slip is corrected; matrices have been quantized before."""
    quantize = functional.int8_vectorwise_quant

    def corrected_scales(x, threshold=0.0):
        codes, absmax, columns = quantize(x, threshold)
        return codes, absmax / SLIP, columns

    return lambda: monkeypatch.setattr(functional, "int8_vectorwise_quant", corrected_scales)


def each_alone(model, call, ids):
    """Results of sequences of one piece: bitsandbytes looks for outliers in all rows together."""
    parts = [call(model, ids[:, i : i + 1]) for i in range(ids.shape[1])]
    return np.concatenate([hidden for hidden, _ in parts], axis=2)


def assert_eight_bits(ours, expected, exact):
    """Most pieces are as close as two orders of summation; the others as close as quantization
    allows."""
    apart = np.array([distance(o, e) for o, e in zip(ours, expected, strict=True)])
    assert (apart <= LIMIT).mean() > 0.9
    for mine, theirs, unquantized in zip(ours, expected, exact, strict=True):
        assert distance(mine, theirs) < 2 * distance(theirs, unquantized)


def pieces(hidden):
    """[states, 1, pieces, width] -> [pieces, states, width]."""
    return hidden[1:, 0].swapaxes(0, 1)


@pytest.mark.parametrize("kind", ["int8", "int8-outliers"])
@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_models_in_eight_bits(variant, kind, tmp_path, corrected):
    theirs = theirs_of(variant, tmp_path, kind)
    corrected()
    folder = tmp_path / "f16"
    ours = load(variant, folder, dtype="float32", quantization_config=CONFIGS[kind])
    plain = load(variant, folder, dtype="float32")

    def call(model, ids):
        return results(model(ids))

    expected = pieces(each_alone(theirs, run, IDS))
    found, exact = (pieces(each_alone(model, call, IDS)) for model in (ours, plain))
    assert_eight_bits(found, expected, exact)
    if kind == "int8":  # rows are computed alone; but attention spreads a byte that is another
        expected, found = pieces(run(theirs, IDS)[0]), pieces(call(ours, IDS)[0])
        close = [distance(o, e) <= LIMIT for o, e in zip(found, expected, strict=True)]
        assert np.mean(close) > 0.1


@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_models_in_nf4(variant, tmp_path):
    theirs = theirs_of(variant, tmp_path, "nf4")
    folder = tmp_path / "f16"
    ours = load(variant, folder, dtype="float32", quantization_config=CONFIGS["nf4"])
    assert_close(results(ours(IDS)), run(theirs, IDS))


@KINDS
@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_checkpoints_that_transformers_saves(variant, kind, tmp_path):
    theirs = theirs_of(variant, tmp_path, kind)
    theirs.save_pretrained(tmp_path / "quantized")
    ours = load(variant, tmp_path / "quantized")
    assert f"matrices in {kind.split('-')[0].replace('int8', 'llm_int8')}" in repr(ours)
    if not kind.startswith("int8"):
        assert_close(results(ours(IDS)), run(theirs, IDS))
        return
    same = load(variant, tmp_path / "f16", dtype="float32", quantization_config=CONFIGS[kind])
    np.testing.assert_array_equal(results(ours(IDS))[0], results(same(IDS))[0])


@KINDS
@pytest.mark.parametrize("variant", FIRST.values(), ids=str)
def test_transformers_computes_with_what_we_save(variant, kind, tmp_path):
    theirs = theirs_of(variant, tmp_path, kind)
    theirs.save_pretrained(tmp_path / "theirs")
    load(variant, tmp_path / "theirs").save(tmp_path / "ours")
    auto = AutoModelForCausalLM if variant.is_decoder else AutoModel
    again, report = auto.from_pretrained(
        tmp_path / "ours", output_loading_info=True, device_map="cpu"
    )
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert not [name for name in report["missing_keys"] if "pooler" not in name]
    (hidden, logits), (expected, expected_logits) = run(again.eval(), IDS), run(theirs, IDS)
    np.testing.assert_array_equal(hidden, expected)
    if logits is not None:
        np.testing.assert_array_equal(logits, expected_logits)


@pytest.mark.parametrize("kind", ["nf4", "fp4-nested"])
def test_falcon_in_four_bits_is_the_model_of_its_dequantized_weights(kind, tmp_path):
    build(FALCON).save_pretrained(tmp_path / "plain")
    ours = load(FALCON, tmp_path / "plain", quantization_config=CONFIGS[kind])
    values = {name: tensor.numpy() for name, tensor in ours.state_dict().items()}
    dequantized = load(FALCON, tmp_path / "plain")
    dequantized.load_state_dict(values)
    dequantized.save(tmp_path / "dequantized")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "dequantized").eval()
    assert_close(results(ours(IDS)), run(theirs, IDS))
