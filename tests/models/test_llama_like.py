"""config.json and parameter names of the architectures that begin with Llama."""

from __future__ import annotations

import numpy as np
import pytest
from models.variants import VARIANTS

from curated_transformers.layers.activations import Activation
from curated_transformers.models import (
    AutoCausalLM,
    Gemma2CausalLM,
    Gemma3CausalLM,
    Gemma3Decoder,
    GemmaCausalLM,
    LlamaCausalLM,
    MistralCausalLM,
    Phi3CausalLM,
    Phi3Decoder,
    Qwen2CausalLM,
    Qwen3CausalLM,
)

CLASSES = {
    "gemma": GemmaCausalLM,
    "gemma2": Gemma2CausalLM,
    "gemma3_text": Gemma3CausalLM,
    "llama": LlamaCausalLM,
    "mistral": MistralCausalLM,
    "phi3": Phi3CausalLM,
    "qwen2": Qwen2CausalLM,
    "qwen3": Qwen3CausalLM,
}
OURS = [variant for variant in VARIANTS if variant.architecture in CLASSES]


def config_json(architecture, **options):
    (config, *_) = (v.config for v in OURS if v.architecture == architecture)
    return {key: value for key, value in (config | options).items() if value is not ...}


def read(architecture, **options):
    return CLASSES[architecture].config_from_hf(config_json(architecture, **options))


ALL = pytest.mark.parametrize("architecture", CLASSES)


@pytest.mark.parametrize("variant", OURS, ids=str)
def test_config_json_is_written_as_it_is_read(variant):
    cls = CLASSES[variant.architecture]
    config = cls.config_from_hf(variant.config)
    written = cls.config_to_hf(config)
    assert cls.config_from_hf(written) == config
    assert written["model_type"] == variant.architecture
    assert cls.spec_from_config(config).core_fields()["n_layers"] == 3 or "one" in variant.name


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (MistralCausalLM, "MistralForCausalLM"),
        (Phi3Decoder, "Phi3Model"),
        (Gemma3CausalLM, "Gemma3ForCausalLM"),
        (Gemma3Decoder, "Gemma3TextModel"),
    ],
)
def test_the_class_is_written_as_transformers_calls_it(cls, name):
    (config, *_) = (v.config for v in OURS if v.architecture in cls.model_types)
    written = cls.config_to_hf(cls.config_from_hf(config))
    assert written["architectures"] == [name]
    assert cls.is_supported({"architectures": [name]})


@ALL
@pytest.mark.parametrize(
    "key",
    ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"],
)
def test_a_missing_key_is_named(architecture, key):
    for absent in (..., None):
        with pytest.raises(ValueError, match=f"Missing keys in Hugging Face .*'{key}'"):
            read(architecture, **{key: absent})


@ALL
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "64"),
        ("num_hidden_layers", 2.5),
        ("rms_norm_eps", "1e-5"),
        ("head_dim", [16]),
        ("num_key_value_heads", 0),
        ("num_key_value_heads", "2"),
        ("max_position_embeddings", True),
        ("attention_dropout", "none"),
        ("rope_theta", "10000"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(architecture, key, value):
    with pytest.raises(ValueError, match=f"config.json: {key} must be"):
        read(architecture, **{key: value})


@ALL
def test_an_unknown_activation_is_refused(architecture):
    with pytest.raises(ValueError, match="swiglu"):
        read(architecture, hidden_act="swiglu", hidden_activation="swiglu")


@ALL
def test_a_quantized_checkpoint_is_refused(architecture):
    with pytest.raises(ValueError, match="quantized by `gptq`"):
        read(architecture, quantization_config={"quant_method": "gptq"})


@pytest.mark.parametrize(
    ("architecture", "absent", "null"),
    [
        ("llama", 64, 64),
        ("mistral", 8, 8),
        ("phi3", 64, 64),
        ("qwen2", 32, 64),
        ("qwen3", 32, 64),
        ("gemma", 16, 16),
        ("gemma2", 4, 4),
        ("gemma3_text", 4, 4),
    ],
)
def test_kv_heads_that_are_not_said_are_those_of_transformers(architecture, absent, null):
    for value, expected in ((..., absent), (None, null)):
        config = read(architecture, num_attention_heads=64, num_key_value_heads=value)
        assert config.layer.attention.n_key_value_heads == expected


# Windows.


@pytest.mark.parametrize(
    ("architecture", "absent", "null"),
    [("mistral", 4096, None), ("phi3", None, None), ("qwen2", None, None)],
)
def test_a_window_that_is_null_is_none_and_one_that_is_missing_is_the_default(
    architecture, absent, null
):
    assert read(architecture, sliding_window=...).window == absent
    assert read(architecture, sliding_window=None).window == null


@pytest.mark.parametrize("architecture", ["mistral", "phi3", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("window", [0, -1, 2.5, "5", True])
def test_a_broken_window_is_refused(architecture, window):
    with pytest.raises(ValueError, match="sliding_window must be"):
        read(architecture, sliding_window=window)


def test_a_window_of_qwen_counts_where_it_is_switched_on():
    window = {"sliding_window": 7, "max_window_layers": 1}
    off = read("qwen2", use_sliding_window=False, **window)
    assert (off.window, off.local_layers) == (None, None)
    on = read("qwen2", use_sliding_window=True, **window)
    assert (on.window, on.local_layers) == (7, (False, True, True))


WITH_TYPES = pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma2", "gemma3_text"])


@WITH_TYPES
def test_layer_types_of_another_number_than_the_layers_are_refused(architecture):
    with pytest.raises(ValueError, match="layer_types has 2 entries for 3 layers"):
        read(architecture, layer_types=["full_attention"] * 2)


@WITH_TYPES
@pytest.mark.parametrize("types", [["chunked_attention"] * 3, "full_attention", [1, 2, 3]])
def test_unknown_layer_types_are_refused(architecture, types):
    with pytest.raises(ValueError, match="layer_types must be a list of sliding_attention and"):
        read(architecture, layer_types=types)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_local_layers_without_a_window_are_refused(architecture):
    with pytest.raises(ValueError, match="sliding layers, but there is no sliding_window"):
        read(architecture, layer_types=["sliding_attention"] * 3, sliding_window=None)


def test_layer_types_of_mistral_are_refused():
    with pytest.raises(ValueError, match=r"layer_types = .* is not supported"):
        read("mistral", layer_types=["full_attention"] * 3)


@pytest.mark.parametrize("pattern", [0, -6, "6"])
def test_a_broken_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match="sliding_window_pattern must be"):
        read("gemma3_text", sliding_window_pattern=pattern)


# What single architectures have.


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_phi3_with_another_scaling_is_refused(kind):
    with pytest.raises(ValueError, match=f"type `{kind}` is not supported, only longrope"):
        read("phi3", rope_scaling={"type": kind, "factor": 2.0})


def test_phi3_needs_the_length_of_its_training_where_it_scales():
    scaling = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    with pytest.raises(ValueError, match=r"Missing keys .*'original_max_position_embeddings'"):
        read("phi3", original_max_position_embeddings=..., rope_scaling=scaling)


def test_dropouts_of_phi3_go_to_their_places():
    config = read("phi3", embd_pdrop=0.1, resid_pdrop=0.2, attention_dropout=0.3)
    assert config.embedding.dropout_prob == 0.1
    assert config.layer.dropout_prob == 0.2
    assert config.layer.attention.dropout_prob == 0.3


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3_text"])
def test_gemma_that_sees_ahead_is_refused(architecture):
    with pytest.raises(ValueError, match="use_bidirectional_attention = True is not supported"):
        read(architecture, use_bidirectional_attention=True)


def test_gelu_of_the_first_gemma_is_the_approximation():
    for name in ("gelu", "gelu_pytorch_tanh", None):
        assert read("gemma", hidden_act=name).layer.feedforward.activation is Activation.GELUNew
    with pytest.raises(ValueError, match="hidden_activation = 'silu' is not supported"):
        read("gemma", hidden_activation="silu")


@pytest.mark.parametrize("value", [0, -30.0, "30"])
@pytest.mark.parametrize("key", ["final_logit_softcapping", "query_pre_attn_scalar"])
def test_broken_caps_and_scales_are_refused(key, value):
    with pytest.raises(ValueError, match=f"config.json: {key} must be"):
        read("gemma2", **{key: value})


def test_a_cap_of_scores_is_not_for_gemma3():
    with pytest.raises(ValueError, match=r"attn_logit_softcapping = 50.0 is not supported"):
        read("gemma3_text", attn_logit_softcapping=50.0)


@pytest.mark.parametrize(
    "parameters", [{"rope_type": "default"}, {"full_attention": 3}, ["full_attention"]]
)
def test_rotary_parameters_of_gemma3_that_are_not_by_type_of_layer_are_refused(parameters):
    with pytest.raises(ValueError, match="rope_parameters must hold objects named full_attention"):
        read("gemma3_text", rope_parameters=parameters)


def test_scaled_angles_of_local_layers_are_refused():
    scaling = {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}
    with pytest.raises(ValueError, match="rotary scaling of sliding_attention is not supported"):
        read("gemma3_text", rope_parameters=scaling)


def test_the_scale_of_embeddings_is_rounded_to_the_dtype():
    """sqrt(3072) = 55.4256 lies between 55.25 and 55.5 in bfloat16."""
    for dtype, expected in (("bfloat16", 55.5), ("float16", 55.4375), ("float32", 55.425625)):
        config = read("gemma", hidden_size=3072, head_dim=256, torch_dtype=dtype)
        fields = GemmaCausalLM.spec_from_config(config).fields
        assert fields["embedding_scale"] == pytest.approx(expected, rel=1e-7)


def test_models_with_pictures_are_refused_with_a_list_of_what_there_is(tmp_path):
    for kind in ("mistral3", "gemma3"):
        (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}", "text_config": {{}}}}')
        with pytest.raises(ValueError, match=f"`{kind}`.*Registered models: .*Gemma3CausalLM"):
            AutoCausalLM.from_path(tmp_path)


# Names.

LLAMA_NAMES = {
    "model.embed_tokens.weight": "decoder.embeddings.piece_embeddings.weight",
    "model.layers.7.self_attn.q_proj.weight": "decoder.layers.7.mha.query.weight",
    "model.layers.7.self_attn.k_proj.weight": "decoder.layers.7.mha.key.weight",
    "model.layers.7.self_attn.v_proj.weight": "decoder.layers.7.mha.value.weight",
    "model.layers.7.self_attn.o_proj.weight": "decoder.layers.7.mha.output.weight",
    "model.layers.7.mlp.gate_proj.weight": "decoder.layers.7.ffn.gate.weight",
    "model.layers.7.mlp.up_proj.weight": "decoder.layers.7.ffn.intermediate.weight",
    "model.layers.7.mlp.down_proj.weight": "decoder.layers.7.ffn.output.weight",
    "model.layers.7.input_layernorm.weight": "decoder.layers.7.attn_input_layer_norm.weight",
    "model.norm.weight": "decoder.output_layer_norm.weight",
    "lm_head.weight": "output_embeddings.weight",
}
USUAL_NORM = {
    "model.layers.7.post_attention_layernorm.weight": (
        "decoder.layers.7.ffn_input_layer_norm.weight"
    ),
}
QK_NORMS = {
    "model.layers.7.self_attn.q_norm.weight": "decoder.layers.7.mha.query_norm.weight",
    "model.layers.7.self_attn.k_norm.weight": "decoder.layers.7.mha.key_norm.weight",
}
GEMMA2_NORMS = {
    "model.layers.7.post_attention_layernorm.weight": (
        "decoder.layers.7.attn_output_layer_norm.weight"
    ),
    "model.layers.7.pre_feedforward_layernorm.weight": (
        "decoder.layers.7.ffn_input_layer_norm.weight"
    ),
    "model.layers.7.post_feedforward_layernorm.weight": (
        "decoder.layers.7.ffn_output_layer_norm.weight"
    ),
}
BIASES = {
    "model.layers.7.self_attn.q_proj.bias": "decoder.layers.7.mha.query.bias",
    "model.layers.7.self_attn.k_proj.bias": "decoder.layers.7.mha.key.bias",
    "model.layers.7.self_attn.v_proj.bias": "decoder.layers.7.mha.value.bias",
}
PHI3_NAMES = {
    "model.layers.7.self_attn.qkv_proj.weight": "decoder.layers.7.mha.input.weight",
    "model.layers.7.mlp.gate_up_proj.weight": "decoder.layers.7.ffn.gate_intermediate.weight",
    **{
        name: own
        for name, own in LLAMA_NAMES.items()
        if not any(part in name for part in (".q_", ".k_", ".v_", "gate", "up_proj"))
    },
}


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("llama", LLAMA_NAMES | USUAL_NORM),
        ("mistral", LLAMA_NAMES | USUAL_NORM),
        ("qwen2", LLAMA_NAMES | USUAL_NORM | BIASES),
        ("qwen3", LLAMA_NAMES | USUAL_NORM | QK_NORMS),
        ("phi3", PHI3_NAMES | USUAL_NORM),
        ("gemma", LLAMA_NAMES | USUAL_NORM),
        ("gemma2", LLAMA_NAMES | GEMMA2_NORMS),
        ("gemma3_text", LLAMA_NAMES | GEMMA2_NORMS | QK_NORMS),
    ],
)
def test_parameter_names(architecture, names):
    cls = CLASSES[architecture]
    assert cls.state_dict_from_hf({name: name for name in names}) == {
        own: name for name, own in names.items()
    }
    assert cls.state_dict_to_hf({own: own for own in names.values()}) == names


def test_norms_of_gemma_are_kept_as_they_are_stored(tmp_path):
    """The 1 that is added to them is no part of the state."""
    config = config_json("gemma", num_hidden_layers=1)
    model = GemmaCausalLM.from_hf_config(hf_config=config)
    width, inner, heads = 72, 88, 64
    shapes = {
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
        "self_attn.q_proj": (heads, width),
        "self_attn.k_proj": (heads // 2, width),
        "self_attn.v_proj": (heads // 2, width),
        "self_attn.o_proj": (width, heads),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    weights = {f"model.layers.0.{name}.weight": np.zeros(s, "f4") for name, s in shapes.items()}
    weights["model.embed_tokens.weight"] = np.ones((101, width), "f4")
    weights["model.norm.weight"] = np.full(width, 0.5, "f4")
    model.load_state_dict(GemmaCausalLM.state_dict_from_hf(weights))
    state = model.state_dict()
    assert (state["decoder.output_layer_norm.weight"].numpy() == 0.5).all()
    # Every layer adds 0; ones of any scale have the norm 1, and the weight is 1 + 0.5.
    np.testing.assert_allclose(model([[1]]).last_hidden_layer_state.numpy(), 1.5, rtol=1e-6)
