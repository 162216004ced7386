"""The transforms of logits, against statements of them in plain Python, one row at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curated_transformers import Tensor
from curated_transformers.generation import (
    CompoundLogitsTransform,
    GreedyGeneratorConfig,
    LogitsTransform,
    MinPTransform,
    SampleGeneratorConfig,
    TemperatureTransform,
    TopKTransform,
    TopPTransform,
    VocabMaskTransform,
)
from curated_transformers.generation.logits import TopPTransform as TopPTransformOfModule

LOWEST = np.finfo(np.float32).min
RNG = np.random.default_rng(7)
LOGITS = RNG.normal(size=(3, 2, 12)).astype(np.float32)


def probabilities(row):
    weights = [math.exp(float(x) - float(max(row))) for x in row]
    return [weight / math.fsum(weights) for weight in weights]


def top_k(row, k):
    if k < 1 or k >= len(row):
        return list(row)
    cutoff = sorted(row, reverse=True)[k - 1]
    return [LOWEST if x < cutoff else x for x in row]


def top_p(row, p):
    if p == 1:
        return list(row)
    order = sorted(range(len(row)), key=lambda i: -row[i])
    share, before, kept = probabilities(row), 0.0, set()
    for place, i in enumerate(order):
        if place == 0 or before < p:
            kept.add(i)
        before += share[i]
    return [x if i in kept else LOWEST for i, x in enumerate(row)]


def min_p(row, p):
    share = probabilities(row)
    return [x if part >= p * max(share) else LOWEST for x, part in zip(row, share, strict=True)]


CASES = [
    *((TemperatureTransform(t), lambda row, t=t: [x / t for x in row]) for t in (0.3, 1.0, 7.0)),
    *((TopKTransform(k), lambda row, k=k: top_k(row, k)) for k in (-1, 0, 1, 3, 11, 12, 50)),
    *((TopPTransform(p), lambda row, p=p: top_p(row, p)) for p in (0.0, 0.2, 0.5, 0.95, 1.0)),
    *((MinPTransform(p), lambda row, p=p: min_p(row, p)) for p in (0.0, 0.1, 0.6, 1.0)),
    (
        VocabMaskTransform([0, 11, 4]),
        lambda row: [LOWEST if i in (0, 4, 11) else x for i, x in enumerate(row)],
    ),
    (VocabMaskTransform([]), list),
    (
        CompoundLogitsTransform([TopKTransform(6), TopPTransform(0.7)]),
        lambda row: top_p(top_k(row, 6), 0.7),
    ),
    (CompoundLogitsTransform(), list),
]


@pytest.mark.parametrize(("transform", "statement"), CASES)
@pytest.mark.parametrize("shape", [(12,), (1, 12), (3, 12), (3, 2, 12), (0, 12)])
def test_transforms_do_what_is_documented_on_the_last_axis(transform, statement, shape):
    logits = LOGITS.reshape(-1, 12)[: math.prod(shape[:-1])].reshape(shape)
    given = logits.copy()
    expected = [statement(row) for row in logits.reshape(-1, 12)]
    expected = np.array(expected, dtype=np.float32).reshape(shape)
    np.testing.assert_allclose(transform(given), expected, rtol=1e-6)  # one division in float32
    np.testing.assert_array_equal(given, logits)  # as it was
    assert transform(given, inplace=True) is given
    np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_ties_at_the_cutoff_of_top_k_survive():
    row = np.array([1, 3, 2, 3, 2, 0], dtype=np.float32)
    assert (TopKTransform(3)(row) > LOWEST).tolist() == [False, True, True, True, True, False]
    assert (TopKTransform(1)(row) > LOWEST).tolist() == [False, True, False, True, False, False]


def test_top_p_of_equal_pieces_keeps_those_with_lower_ids():
    assert (TopPTransform(0.4)(np.zeros(5)) > LOWEST).tolist() == [True, True, False, False, False]
    assert (TopPTransform(0)(np.zeros(5)) > LOWEST).tolist() == [True] + [False] * 4


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_tensors_stay_tensors_of_their_dtype(dtype):
    logits = Tensor(LOGITS, dtype=dtype)
    result = VocabMaskTransform([1])(logits)
    assert isinstance(result, Tensor)
    assert result.dtype == dtype
    values = result.numpy()
    lowest = {"float32": LOWEST, "float16": -65504.0, "bfloat16": -(2 - 2.0**-7) * 2.0**127}[dtype]
    assert (values[..., 1] == lowest).all()  # and not minus infinity
    np.testing.assert_array_equal(values[..., 2:], logits.numpy()[..., 2:])


def test_tensors_are_changed_in_place_where_numpy_sees_their_memory():
    logits = Tensor(LOGITS.copy())
    assert TopKTransform(1)(logits, inplace=True) is logits
    assert ((logits.numpy() > LOWEST).sum(axis=-1) == 1).all()
    with pytest.raises(ValueError, match="bfloat16 tensor cannot be changed in place"):
        TopKTransform(1)(Tensor(LOGITS, dtype="bfloat16"), inplace=True)


def test_lists_become_arrays():
    assert TemperatureTransform(2)([[2.0, 4.0]]).tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="a list cannot be changed in place"):
        TemperatureTransform(2)([2.0], inplace=True)


def test_a_temperature_may_take_masked_logits_to_minus_infinity_silently():
    logits = VocabMaskTransform([0])(np.ones(3, dtype=np.float32))
    with np.errstate(all="raise"):
        assert TemperatureTransform(0.5)(logits).tolist() == [-math.inf, 2, 2]


def test_subclasses_change_the_array_they_get():
    class Flat(LogitsTransform):
        def _process_logits(self, logits):
            logits[:] = 0

    assert not Flat()(LOGITS).any()
    assert not CompoundLogitsTransform([Flat()])(Tensor(LOGITS)).numpy().any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VocabMaskTransform([[1, 2]]), "must be 1D"),
        (lambda: VocabMaskTransform([[1], [1, 2]]), "must be 1D"),
        (lambda: VocabMaskTransform(np.ones((2, 2), int)), "must be 1D"),
        (lambda: VocabMaskTransform({3, -1}), "must be >= 0"),
        (lambda: VocabMaskTransform([12])(LOGITS), "must be < 12, but got 12"),
        (
            lambda: TemperatureTransform(0),
            "The temperature must be a non-zero positive value, was: 0",
        ),
        (lambda: TemperatureTransform(math.nan), "was: nan"),
        (
            lambda: TopPTransform(1.5),
            r"Top-p probability must be between 0 and 1 \(inclusive\), was: 1.5",
        ),
        (lambda: MinPTransform(-0.1), "Min-p probability must be between 0 and 1"),
    ],
)
def test_unusable_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_configuration_states_its_transforms_in_the_documented_order():
    def kinds(config):
        transform = config.logits_transform()
        is_list = isinstance(transform, CompoundLogitsTransform)
        return [type(one).__name__ for one in transform] if is_list else type(transform).__name__

    cuts = ["TemperatureTransform", "TopKTransform", "TopPTransform"]
    assert kinds(GreedyGeneratorConfig()) == []
    assert kinds(GreedyGeneratorConfig({1})) == "VocabMaskTransform"
    assert kinds(GreedyGeneratorConfig(set())) == "VocabMaskTransform"
    assert kinds(SampleGeneratorConfig()) == cuts
    assert kinds(SampleGeneratorConfig({1})) == ["VocabMaskTransform", *cuts]
    assert kinds(SampleGeneratorConfig(min_p=0.1)) == [*cuts, "MinPTransform"]
    assert TopPTransformOfModule is TopPTransform


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_torch_tensors_stay_torch_tensors(dtype):
    import torch

    logits = torch.from_numpy(LOGITS.copy()).to(getattr(torch, dtype))
    result = VocabMaskTransform([1])(logits)
    assert result.dtype == logits.dtype
    assert (result[..., 1] == torch.finfo(logits.dtype).min).all()
    assert (result[..., 2:] == logits[..., 2:]).all()
    assert TopKTransform(2)(logits, inplace=True) is logits
    assert ((logits > torch.finfo(logits.dtype).min).sum(-1) >= 2).all()


@pytest.mark.parametrize("logits", [[1, 2], np.zeros((2, 5), int), 1.5, np.float32(1)])
@pytest.mark.parametrize(
    "transform", [VocabMaskTransform([0]), TemperatureTransform(2), TopKTransform(1)]
)
def test_what_is_no_row_of_floats_is_refused(transform, logits):
    with pytest.raises(TypeError, match=r"logits must be floats \[\.\.\., pieces\], got"):
        transform(logits)


@pytest.mark.parametrize("pieces", [[1.5], ["a"], [None]])
def test_pieces_that_are_no_ids_are_not_masked(pieces):
    with pytest.raises(TypeError, match="must be whole numbers"):
        VocabMaskTransform(pieces)
