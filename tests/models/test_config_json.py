"""config.json -> configuration and back, for every variant of every architecture."""

from __future__ import annotations

import inspect
import json
import re

import pytest
from models.variants import VARIANTS

from curated_transformers.layers import Activation
from curated_transformers.models import ALBERTConfig, BERTConfig, RoBERTaConfig
from curated_transformers.models.hf_hub.conversion import flag, number, whole_number
from curated_transformers.registry import registry

REGISTRIES = (registry.encoders, registry.decoders, registry.causal_lms)
CLASSES = [found for names in REGISTRIES for _, found in names.classes()]


def classes_of(config):
    """Of the architecture, without and with a head."""
    return [found for found in CLASSES if found.is_supported(config)]


def read(config):
    return classes_of(config)[0].config_from_hf(config)


def outcome(config):
    try:
        return read(config)
    except ValueError as error:
        return str(error)


def nullable(found):
    """Keys whose null has a meaning of its own."""
    return {key.name for key in found.hf_keys if key.nullable}


def variant_of(architecture):
    return next(variant for variant in VARIANTS if variant.architecture == architecture)


ALL = pytest.mark.parametrize("variant", VARIANTS, ids=str)
EACH = pytest.mark.parametrize(
    "variant",
    [variant_of(name) for name in sorted({variant.architecture for variant in VARIANTS})],
    ids=lambda variant: variant.architecture,
)


@ALL
def test_what_is_written_is_read_again(variant):
    for found in classes_of(variant.config):
        config = found.config_from_hf(variant.config)
        written = found.config_to_hf(config)
        assert all(v is not None or k in nullable(found) for k, v in written.items())
        assert found.is_supported(written)
        again = found.config_from_hf(json.loads(json.dumps(written)))
        assert again == config
        assert repr(again) == repr(config)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_dtype_is_written_as_it_is(variant, dtype):
    for found in classes_of(variant.config):
        config = found.config_from_hf({**variant.config, "torch_dtype": dtype})
        assert config.dtype == dtype
        assert found.config_to_hf(config)["torch_dtype"] == dtype


@EACH
def test_the_newer_key_of_the_dtype_wins(variant):
    config = {**variant.config, "dtype": "bfloat16", "torch_dtype": "float16"}
    assert read(config).dtype == "bfloat16"
    assert read({**config, "dtype": None}).dtype == "float16"


@EACH
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_an_unknown_dtype(variant, key):
    config = {k: v for k, v in variant.config.items() if k != "torch_dtype"}
    with pytest.raises(ValueError, match="Invalid torch dtype `float8`"):
        read({**config, key: "float8"})


@ALL
def test_null_counts_as_absent(variant):
    for key in variant.config:
        if key == "model_type" or key in nullable(classes_of(variant.config)[0]):
            continue
        without = {k: v for k, v in variant.config.items() if k != key}
        assert outcome({**variant.config, key: None}) == outcome(without), key


@EACH
def test_an_unknown_activation(variant):
    for key in ("hidden_act", "hidden_activation", "activation"):
        if key in variant.config:
            with pytest.raises(ValueError, match="activation function `crelu`"):
                read({**variant.config, key: "crelu"})
            with pytest.raises(ValueError, match="Invalid activation function"):
                read({**variant.config, key: ["gelu"]})


BROKEN = {
    whole_number: ("64", 1.5, True, [64], {}, float("inf"), float("nan")),
    number: ("0.1", True, [0.1], {}),
    flag: ("true", 1, 0, []),
}


@EACH
def test_values_of_the_wrong_kind_are_named(variant):
    found = classes_of(variant.config)[0]
    assert found.hf_keys
    for key in found.hf_keys:
        for value in BROKEN.get(key.read, ()):
            with pytest.raises(ValueError, match=rf"{found.hf_label} config.json: .*{key.name}"):
                found.config_from_hf({**variant.config, key.name: value})


@EACH
def test_whole_numbers_may_be_written_as_floats(variant):
    found = classes_of(variant.config)[0]
    floats = {
        key.name: float(variant.config[key.name])
        for key in found.hf_keys
        if key.read is whole_number and variant.config.get(key.name) is not None
    }
    assert floats
    again = found.config_from_hf({**variant.config, **floats})
    assert repr(again) == repr(found.config_from_hf(variant.config))


@EACH
def test_a_quantized_checkpoint_is_refused(variant):
    with pytest.raises(ValueError, match="checkpoints quantized by `gptq` are not supported"):
        read({**variant.config, "quantization_config": {"quant_method": "gptq"}})


BERT_KEYS = (
    *("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size"),
    *("intermediate_size", "layer_norm_eps", "max_position_embeddings", "num_attention_heads"),
    *("num_hidden_layers", "type_vocab_size", "vocab_size"),
)
#: As documented: what stands in the message, and the keys without which nothing is read.
REQUIRED = {
    "bert": ("BERT", BERT_KEYS),
    "roberta": ("RoBERTa", (*BERT_KEYS, "pad_token_id")),
    "camembert": ("RoBERTa", (*BERT_KEYS, "pad_token_id")),
    "xlm-roberta": ("RoBERTa", (*BERT_KEYS, "pad_token_id")),
    "electra": ("ELECTRA", (*BERT_KEYS, "embedding_size")),
    "albert": (
        "ALBERT",
        (*BERT_KEYS, "embedding_size", "inner_group_num", "num_hidden_groups"),
    ),
    "mpnet": ("MPNet", tuple(key for key in BERT_KEYS if key != "type_vocab_size")),
    "distilbert": (
        "DistilBERT",
        (
            *("activation", "dim", "hidden_dim", "max_position_embeddings"),
            *("n_heads", "n_layers", "vocab_size"),
        ),
    ),
    "modernbert": (
        "ModernBERT",
        (
            *("hidden_size", "intermediate_size", "num_attention_heads"),
            *("num_hidden_layers", "vocab_size"),
        ),
    ),
    "llama": (
        "Llama",
        (
            *("hidden_act", "hidden_size", "intermediate_size", "num_attention_heads"),
            *("num_hidden_layers", "rms_norm_eps", "vocab_size"),
        ),
    ),
}


@pytest.mark.parametrize("architecture", REQUIRED)
def test_missing_keys_are_named_at_once(architecture):
    label, keys = REQUIRED[architecture]
    text = f"Missing keys in Hugging Face {label} model config: {tuple(sorted(keys))}"
    with pytest.raises(ValueError, match=re.escape(text)):
        read({"model_type": architecture})
    config = variant_of(architecture).config
    for key in keys:
        with pytest.raises(ValueError, match=re.escape(f"{label} model config: ('{key}',)")):
            read({k: v for k, v in config.items() if k != key})


BERT_LIKE = ("bert", "roberta", "camembert", "xlm-roberta", "electra", "albert", "mpnet")
REFUSED = [
    *((name, "position_embedding_type", "relative_key") for name in BERT_LIKE),
    *((name, "position_embedding_type", "relative_key_query") for name in BERT_LIKE),
    *((name, "is_decoder", True) for name in BERT_LIKE),
    *((name, "add_cross_attention", True) for name in BERT_LIKE),
    ("albert", "down_scale_factor", 2),
    ("albert", "gap_size", 1),
    ("albert", "net_structure_type", 1),
    ("albert", "num_memory_blocks", 1),
    ("mpnet", "relative_attention_num_buckets", 64),
    ("modernbert", "head_dim", 8),
    ("modernbert", "partial_rotary_factor", 0.5),
    ("modernbert", "layer_types", ["full_attention"]),
    ("modernbert", "layer_types", ["chunked_attention"] * 5),
    ("modernbert", "layer_types", "full_attention"),
    ("modernbert", "global_attn_every_n_layers", 0),
    ("modernbert", "local_attention", -1),
    ("modernbert", "rope_parameters", 5),
    ("modernbert", "rope_parameters", {"full_attention": 5}),
    ("modernbert", "rope_scaling", "linear"),
    ("modernbert", "rope_scaling", {"rope_type": "unheard"}),
    ("llama", "pretraining_tp", 3),
]


@pytest.mark.parametrize(("architecture", "key", "value"), REFUSED)
def test_options_of_another_model_are_refused_by_name(architecture, key, value):
    # Scaling is refused under what it is, whichever key it came from.
    name = "rotary scaling" if value == {"rope_type": "unheard"} else key
    with pytest.raises(ValueError, match=name):
        read({**variant_of(architecture).config, key: value})


@pytest.mark.parametrize("name", BERT_LIKE)
def test_options_that_say_what_is_done_anyway(name):
    config = variant_of(name).config
    same = {"position_embedding_type": "absolute", "is_decoder": False, "use_cache": True}
    assert read({**config, **same}) == read(config)


# Defaults and derived values, as documented.

COMMON = {
    "dtype": "float32",
    "embedding_width": 768,
    "hidden_width": 768,
    "intermediate_width": 3072,
    "n_attention_heads": 12,
    "n_hidden_layers": 12,
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "activation": Activation.GELU,
    "n_pieces": 30000,
    "n_types": 2,
    "n_positions": 512,
    "model_max_length": 512,
    "layer_norm_eps": 1e-12,
}
DEFAULTS = {
    BERTConfig: COMMON,
    RoBERTaConfig: COMMON
    | {
        "n_pieces": 50265,
        "n_types": 1,
        "n_positions": 514,
        "layer_norm_eps": 1e-5,
        "padding_id": 1,
    },
    ALBERTConfig: COMMON
    | {
        "embedding_width": 128,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "activation": Activation.GELUNew,
        "n_layers_per_group": 1,
        "n_hidden_groups": 1,
    },
}


@pytest.mark.parametrize("config_class", DEFAULTS)
def test_documented_defaults(config_class):
    parameters = inspect.signature(config_class.__init__).parameters
    found = {name: p.default for name, p in parameters.items() if name != "self"}
    assert found == DEFAULTS[config_class]
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "self")
    config_class()


@pytest.mark.parametrize("name", ["roberta", "camembert", "xlm-roberta"])
@pytest.mark.parametrize("padding", [0, 1, 17])
def test_positions_before_the_first_do_not_count_for_the_length(name, padding):
    config = read({**variant_of(name).config, "pad_token_id": padding})
    assert config.padding_id == padding
    assert config.embedding.n_positions == 320
    assert config.model_max_length == 320 - padding - 1


def test_configurations_that_differ_in_the_padding_id_alone_differ():
    one, other = RoBERTaConfig(padding_id=1), RoBERTaConfig(padding_id=2)
    assert one != other
    assert one == RoBERTaConfig(padding_id=1)
    assert "padding_id=1" in repr(one)
    assert "padding_id=2" in repr(other)


WRITTEN = {
    "albert": "AlbertModel",
    "bert": "BertModel",
    "camembert": "CamembertModel",
    "electra": "ElectraModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}


@pytest.mark.parametrize("architecture", WRITTEN)
def test_what_is_written_names_the_model(architecture):
    config = variant_of(architecture).config
    written = classes_of(config)[0].config_to_hf(read(config))
    assert written["architectures"] == [WRITTEN[architecture]]
    assert written["model_type"] == architecture
    assert written["transformers_version"] == "4.33.0"


def test_values_that_the_whole_needs_survive_the_way_through_config_json():
    config = variant_of("albert").config | {"inner_group_num": 3, "num_hidden_groups": 2}
    layer = read(config).layer
    assert (layer.n_layers_per_group, layer.n_hidden_groups) == (3, 2)


def test_positions_of_a_modernbert_without_its_newer_keys():
    """The published files of 2024 have a base each, and say how far apart global layers are."""
    config = read(
        {
            **variant_of("modernbert").config,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "global_attn_every_n_layers": 3,
            "local_attention": 128,
            "position_embedding_type": "absolute",
            "layer_norm_eps": 1e-5,
        }
    )
    assert config.layer.attention.rotary_embeddings.rotary_base == 160000.0
    assert config.local_rotary_embedding_base == 10000.0
    assert config.local_layers == (False, True, True, False, True)
    assert config.local_reach == 64


def test_a_scaling_that_local_layers_cannot_have():
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 160}
    variant = variant_of("modernbert")
    found = classes_of(variant.config)[0]
    around = {**variant.config, "rope_parameters": {"full_attention": yarn}}
    found.from_hf_config(hf_config=around)
    near = {**variant.config, "rope_parameters": {"sliding_attention": yarn}}
    with pytest.raises(ValueError, match="`yarn` is not supported in local layers"):
        found.from_hf_config(hf_config=near)


def test_an_activation_may_be_its_name():
    assert BERTConfig(activation="gelu_new") == BERTConfig(activation=Activation.GELUNew)
    with pytest.raises(ValueError, match="Invalid activation function `swish`"):
        BERTConfig(activation="swish")
