"""Rotary tables against transformers' own functions, and what is refused about them.

The tables of whole models are compared in test_parity.py; here many more values are.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import small_models

from curated_transformers.models import AutoCausalLM, LlamaConfig, LlamaDecoder
from curated_transformers.models.hf_hub.conversion import HFConfig
from curated_transformers.models.rotary import make_rotary, read_rope

MINIMAL = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 256},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 256,
        "short_factor": [1.0, 1.5, 2.0, 2.5],
        "long_factor": [2.0, 4.0, 8.0, 16.0],
    },
}


def read(scaling, **config):
    values = {"max_position_embeddings": 1024, "rope_scaling": scaling} | config
    return read_rope(HFConfig(values, "Llama"), 10000.0)


def with_factors(kind, values, n_pairs):
    if kind == "longrope":
        values = values | {
            "short_factor": np.linspace(1, 3, n_pairs).tolist(),
            "long_factor": np.linspace(1, 60, n_pairs).tolist(),
        }
    return values


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in MINIMAL if kind != "default"])
@pytest.mark.parametrize("width", [2, 16, 80, 128])
def test_the_table_is_that_of_transformers(kind, width):
    """f32 powers of two libraries differ in the last place or two; a wrong rule, at some pair, by
    a share of the factor."""
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
    transformers = pytest.importorskip("transformers")
    if kind == "dynamic" and width == 2:
        pytest.skip("transformers divides by width - 2")
    options = {
        "yarn": [
            {},
            {"beta_fast": 8.0, "beta_slow": 2.0},
            {"truncate": False},
            {"attention_factor": 0.7},
            {"mscale": 0.7, "mscale_all_dim": 1.3},
            {"mscale": 0.7},
            {"factor": 1.0},
        ],
        "longrope": [{}, {"attention_factor": 0.7}, {"factor": 1.0}],
        "llama3": [{}, {"low_freq_factor": 0.5, "high_freq_factor": 32.0}],
    }.get(kind, [{}, {"factor": 1.5}])
    for changes, base in itertools.product(options, (100.0, 10000.0, 1e6)):
        scaling = with_factors(kind, MINIMAL[kind], width // 2) | changes | {"rope_type": kind}
        config = transformers.LlamaConfig(
            hidden_size=4 * width,
            num_attention_heads=4,
            head_dim=width,
            max_position_embeddings=1024,
            rope_parameters=scaling | {"rope_theta": base},
        )
        frequencies, factor = rope_utils.ROPE_INIT_FUNCTIONS[kind](config, "cpu")
        made = make_rotary(width, base, read(scaling).scaling)
        np.testing.assert_allclose(made.frequencies, frequencies.numpy(), rtol=1e-6)
        assert made.factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in MINIMAL if kind != "default"])
def test_a_scaling_changes_the_table_and_what_was_read_reads_the_same_again(kind):
    plain = make_rotary(8, 10000.0, read(None).scaling)
    rope = read({"rope_type": kind} | MINIMAL[kind], rope_theta=10000.0)
    made = make_rotary(8, rope.base, rope.scaling)
    assert (made.limit is None) == (kind not in ("dynamic", "longrope"))
    assert kind == "dynamic" or not np.array_equal(made.frequencies, plain.frequencies)
    assert read(rope.scaling, rope_theta=10000.0) == rope


@pytest.mark.parametrize("name", ["type", "rope_type"])
def test_su_is_longrope(name):
    assert read({name: "su"} | MINIMAL["longrope"]) == read(
        {"rope_type": "longrope"} | MINIMAL["longrope"]
    )


def test_the_newer_key_for_the_type_wins():
    assert read({"type": "linear", "rope_type": "yarn", "factor": 4.0}).scaling["rope_type"] == (
        "yarn"
    )


def test_a_length_beside_the_scaling_wins_over_the_one_in_it():
    scaling = read({"rope_type": "yarn"} | MINIMAL["yarn"], original_max_position_embeddings=128)
    assert scaling.scaling["original_max_position_embeddings"] == 128


def test_lengths_stand_in_for_the_factor():
    scaling = read({"rope_type": "yarn", "original_max_position_embeddings": 256}).scaling
    assert scaling["factor"] == 4.0


@pytest.mark.parametrize("kind", ["ntk", "mrope", "proportional", "", 3, ["yarn"], {}])
def test_an_unknown_type_is_refused_by_name(kind):
    with pytest.raises(
        ValueError, match="is not supported, only default, linear, dynamic"
    ) as error:
        read({"rope_type": kind, "factor": 2.0})
    assert f"`{kind}`" in str(error.value)


@pytest.mark.parametrize("scaling", [["yarn"], "yarn", 4])
def test_a_scaling_that_is_no_object_is_refused(scaling):
    with pytest.raises(ValueError, match="rope_scaling is not an object"):
        read(scaling)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (kind, key)
        for kind, values in MINIMAL.items()
        for key in values
        if (kind, key) not in {("dynamic", "factor"), ("longrope", "long_factor")}
    ],
)
def test_a_missing_key_is_named(kind, key):
    values = {name: value for name, value in MINIMAL[kind].items() if name != key}
    with pytest.raises(ValueError, match=f"rotary scaling `{kind}` needs `{key}`"):
        read({"rope_type": kind} | values, max_position_embeddings=None)
    with pytest.raises(ValueError, match=f"rotary scaling `{kind}` needs `{key}`"):
        read({"rope_type": kind, key: None} | values, max_position_embeddings=None)


BROKEN = [0, -1.0, "4", True, [1.0], float("nan"), float("inf")]


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (kind, key, value)
        for kind, values in MINIMAL.items()
        for key in values
        if not key.endswith(("short_factor", "long_factor"))
        for value in BROKEN
    ]
    + [("yarn", key, value) for key in ("beta_fast", "attention_factor") for value in BROKEN]
    + [("yarn", "truncate", 1), ("yarn", "mscale", "1")]
    + [("llama3", "original_max_position_embeddings", 2.5)]
    + [
        ("longrope", key, value)
        for key in ("short_factor", "long_factor")
        for value in (2.0, "1234", [1.0, 0, 1, 1], [1.0, -1, 1, 1], [1.0, "1", 1, 1])
    ],
)
def test_a_broken_value_is_refused_and_its_key_named(kind, key, value):
    with pytest.raises(ValueError, match=f"Llama config.json: rotary scaling: {key} must be"):
        read({"rope_type": kind} | MINIMAL[kind] | {key: value})


def test_bounds_of_llama3_in_the_wrong_order_are_refused():
    values = MINIMAL["llama3"] | {"high_freq_factor": 1.0}
    with pytest.raises(ValueError, match="high_freq_factor must be more than low_freq_factor"):
        read({"rope_type": "llama3"} | values)


@pytest.mark.parametrize("key", ["short_factor", "long_factor"])
@pytest.mark.parametrize("n", [0, 3, 5])
def test_a_list_of_another_length_than_the_pairs_is_refused(key, n):
    scaling = read({"rope_type": "longrope"} | MINIMAL["longrope"] | {key: [1.0] * n}).scaling
    with pytest.raises(ValueError, match=f"{key} has {n} factors for 4 pairs"):
        make_rotary(8, 10000.0, scaling)


@pytest.mark.parametrize("theta", BROKEN)
def test_a_broken_base_is_refused(theta):
    with pytest.raises(ValueError, match="rope_theta must be"):
        read(None, rope_theta=theta)
    with pytest.raises(ValueError, match="rope_theta must be"):
        read({"rope_type": "default", "rope_theta": theta})


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
    ],
    ids=["dynamic", "longrope"],
)
def test_a_sequence_beyond_the_length_of_the_training_is_refused(scaling, tmp_path):
    folder = small_models.llama(tmp_path, positions=256)
    config = json.loads((folder / "config.json").read_text())
    config |= {"rope_scaling": scaling, "original_max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoCausalLM.from_path(folder)
    ids = np.ones((1, 65), dtype=np.int64)
    model(ids[:, :64])
    with pytest.raises(ValueError, match="a sequence of 65 pieces is longer than the 64 positions"):
        model(ids)
    cache = model(ids[:, :64], store_cache=True).cache
    with pytest.raises(ValueError, match="a sequence of 65 pieces is longer than the 64 positions"):
        model(ids[:, :1], np.ones((1, 65), dtype=bool), cache=cache)


def test_more_than_a_whole_head_cannot_rotate():
    with pytest.raises(ValueError, match="fraction should be between 0 and 1"):
        LlamaDecoder(LlamaConfig(rotary_embedding_fraction=1.5))
