"""GGUF files of Llama-like architectures against stored values, against transformers live, and
what is refused in them."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoint_writers import ARRAY, INT32, UINT32
from models.comparison import assert_close, golden_values, golden_weights, results
from models.gguf_files import F16, F32, MODEL_NAMES, Q4_0, Q8_0, gguf_name, write_gguf
from models.variants import (
    GOLDEN,
    GOLDEN_LONG,
    GOLDEN_PLACES,
    VARIANTS,
    piece_ids,
    random_weights,
)
from models.variants.gemma import gemma2, gemma3
from models.variants.llama import llama
from models.variants.phi3 import phi3
from models.variants.qwen2 import qwen2
from models.variants.qwen3 import qwen3

from curated_transformers.models import AutoCausalLM, AutoDecoder, MistralCausalLM, Phi3CausalLM

#: Variants that such a file can be of.
SAYABLE = {
    "llama": [
        *("gqa", "mha", "odd-heads", "wider-heads", "tied", "all-biases", "theta"),
        *("linear-new", "llama3-new", "yarn", "yarn-betas", "longrope"),
    ],
    "mistral": ["window-5"],
    "qwen2": ["base", "all-local", "tied", "yarn"],
    "qwen3": ["base", "tied"],
    "phi3": ["base", "window-100", "longrope", "partial", "partial-longrope", "tied"],
    "gemma": ["base", "mqa"],
    "gemma3_text": ["base", "window-100", "logit-cap", "linear", "bases"],
}
ALL = [variant for variant in VARIANTS if variant.name in SAYABLE.get(variant.architecture, [])]


def test_the_variants_exist():
    assert len(ALL) == sum(map(len, SAYABLE.values()))


@pytest.mark.parametrize("variant", [v for v in ALL if v in GOLDEN], ids=str)
def test_a_file_is_the_model_whose_values_are_stored(variant, tmp_path):
    write_gguf(tmp_path / "model.gguf", variant, golden_weights(variant))
    model = AutoCausalLM.from_path(tmp_path / "model.gguf")
    hidden, logits = results(model(piece_ids(1, 1, GOLDEN_LONG)))
    stored = golden_values(variant)
    ours = hidden[:, 0, GOLDEN_PLACES], logits[0, GOLDEN_PLACES]
    assert_close(ours, (stored["long_hidden"], stored["long_logits"]))
    decoder = AutoDecoder.from_path(tmp_path / "model.gguf")
    np.testing.assert_array_equal(results(decoder(piece_ids(1, 1, GOLDEN_LONG)))[0], hidden)


# Live.


@pytest.mark.slow
def test_names_are_those_of_the_gguf_package():
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("transformers")
    from oracles.random_models import build

    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    checked = set()
    for variant in ALL:
        architecture = {"gemma3_text": "gemma3", "mistral": "llama"}.get(
            variant.architecture, variant.architecture
        )
        table = gguf.get_tensor_name_map(architectures[architecture], 3)
        for name, _ in build(variant).named_parameters():
            expected = table.get_name(name, try_suffixes=(".weight", ".bias"))
            assert gguf_name(variant, name) == expected, (variant, name)
            checked.add(expected)
    assert len(checked) > len(MODEL_NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [
        *ALL,
        gemma2("as-files-say", query_pre_attn_scalar=16),
        gemma2("window-5", query_pre_attn_scalar=16, sliding_window=5),
        # The deepest of Gemma 2 and 3 scale their scores by other widths.
        gemma2("deepest", num_hidden_layers=46, query_pre_attn_scalar=18, head_dim=16),
        gemma3("deepest", num_hidden_layers=62, query_pre_attn_scalar=18, head_dim=16),
        gemma3("default-pattern", num_hidden_layers=7, sliding_window_pattern=6),
    ],
    ids=str,
)
def test_a_file_is_the_model_that_it_was_made_of(variant, tmp_path):
    pytest.importorskip("transformers")
    from oracles.random_models import build, run

    reference = build(variant)
    weights = {name: parameter.detach().numpy() for name, parameter in reference.named_parameters()}
    write_gguf(tmp_path / "model.gguf", variant, weights)
    ids = piece_ids(1, 2, 140)
    ours = results(AutoCausalLM.from_path(tmp_path / "model.gguf")(ids))
    assert_close(ours, run(reference, ids))


WIDE = {"hidden_size": 64, "intermediate_size": 96}
#: What transformers reads of a file: no windows but Gemma's, no scaling, heads of 128 and 256.
#: Its release 5.24 refuses Mistral's.
LOADABLE = [
    llama("plain", **WIDE),
    llama("tied", tie_word_embeddings=True, rope_theta=500000.0, **WIDE),
    qwen2("plain", **WIDE),
    qwen3("plain", head_dim=128, **WIDE),
    phi3("plain", **WIDE),
    gemma2(
        "plain",
        head_dim=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        query_pre_attn_scalar=256,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        sliding_window=20,
        **WIDE,
    ),
    gemma3(
        "plain",
        head_dim=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        query_pre_attn_scalar=256,
        sliding_window=20,
        sliding_window_pattern=6,
        num_hidden_layers=7,
        rope_theta=1000000.0,
        **WIDE,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("variant", LOADABLE, ids=str)
@pytest.mark.parametrize("stored", ["F32", "F16", "Q8_0", "Q4_0"])
def test_a_file_is_the_same_model_as_in_transformers(variant, stored, tmp_path):
    gguf = pytest.importorskip("gguf")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers needs it for these files")
    from oracles.random_models import build, run

    kind = {"F32": F32, "F16": F16, "Q8_0": Q8_0, "Q4_0": Q4_0}[stored]
    weights = {
        name: random_weights(name, tuple(parameter.shape))
        for name, parameter in build(variant).named_parameters()
    }

    def quantize(array, kind):
        return gguf.quants.quantize(array, gguf.GGMLQuantizationType(kind))

    write_gguf(tmp_path / "model.gguf", variant, weights, kind, quantize)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype="float32"
    ).eval()
    assert reference.config.model_type == variant.architecture
    ids = piece_ids(1, 2, 100)
    model = AutoCausalLM.from_path(tmp_path / "model.gguf")
    assert_close(results(model(ids)), run(reference, ids))


# Refusals.


def write(tmp_path, **changes):
    (variant,) = (v for v in ALL if str(v) == "llama-gqa")
    write_gguf(tmp_path / "model.gguf", variant, golden_weights(variant), **changes)
    return tmp_path / "model.gguf"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.causal", False, "attention.causal = False is not supported"),
        ("expert_count", 8, "expert_count = 8 is not supported"),
        ("attention.scale", 0.5, "attention.scale = 0.5 is not supported"),
        ("attention.clamp_kqv", 8.0, "attention.clamp_kqv = 8.0 is not supported"),
        ("logit_scale", 2.0, "logit_scale = 2.0 is not supported"),
        ("embedding_scale", 2.0, "embedding_scale = 2.0 is not supported"),
        ("attention.value_length", 8, "attention.value_length = 8 is not supported, only 16"),
        ("rope.scaling.type", "ntk", "rotary scaling of type `ntk` is not supported"),
        ("rope.scaling.type", "longrope", "rotary scaling of type `longrope` is not supported"),
        ("rope.scaling.attn_factor", 2.0, "attn_factor = 2.0 is not supported"),
        ("feed_forward_length", None, r"Missing keys .*feed_forward_length"),
        ("rope.freq_base_swa", 5.0, "rope.freq_base_swa = 5.0 is not supported"),
        (
            "attention.head_count_kv",
            (ARRAY, (UINT32, [1, 2, 2])),
            "attention.head_count_kv by layer is not supported",
        ),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(key, value, message, tmp_path):
    path = write(tmp_path, **{key.replace(".", "__"): value})
    with pytest.raises(ValueError, match=message):
        AutoCausalLM.from_path(path)


@pytest.mark.parametrize("key", ["yarn_ext_factor", "yarn_attn_factor", "yarn_log_multiplier"])
def test_yarn_with_other_factors_is_refused(key, tmp_path):
    changes = {
        "rope__scaling__type": "yarn",
        "rope__scaling__factor": 4.0,
        "rope__scaling__original_context_length": 64,
        f"rope__scaling__{key}": 0.5,
    }
    with pytest.raises(ValueError, match=f"{key} = 0.5 is not supported"):
        AutoCausalLM.from_path(write(tmp_path, **changes))


def test_a_factor_without_a_type_is_a_linear_one(tmp_path):
    model = AutoCausalLM.from_path(write(tmp_path, rope__scaling__factor=4.0))
    assert model.config.rope_scaling == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("window", "pattern", "expected"),
    [
        (5, None, (5, None)),
        (0, None, (None, None)),
        (5, 2, (5, (True, False, True))),
        (5, 1, (None, None)),
        (5, (ARRAY, (INT32, [0, 1, 0])), (5, (False, True, False))),
    ],
)
def test_windows(window, pattern, expected, tmp_path):
    changes = {"attention__sliding_window": window, "attention__sliding_window_pattern": pattern}
    config = AutoCausalLM.from_path(write(tmp_path, **changes)).config
    assert (config.window, config.local_layers) == expected


def test_a_class_loads_the_files_of_its_own_architecture(tmp_path):
    path = write(tmp_path)
    for cls in (MistralCausalLM, Phi3CausalLM):
        with pytest.raises(ValueError, match=f"`llama` cannot be loaded by {cls.__name__}"):
            cls.from_path(path)
