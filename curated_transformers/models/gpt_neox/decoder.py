"""GPT-NeoX as data: config.json, specification, parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...layers.activations import Activation
from ..config import HFConfig
from ..module import DecoderModule, TransformerModule
from ..rotary import rope_parameters, rotary_frequencies, scale_frequencies
from ..spec import ParameterNames, TransformerSpec
from .config import GPTNeoXConfig

REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "vocab_size",
    "max_position_embeddings",
    "layer_norm_eps",
)

MODEL_NAMES = {
    "embed_in.weight": "piece_embeddings.weight",
    "final_layer_norm.weight": "output_norm.weight",
    "final_layer_norm.bias": "output_norm.bias",
    "embed_out.weight": "head.weight",
    "lm_head.weight": "head.weight",  # its name inside transformers since version 5
}

_LAYER_MODULES = {
    "input_layernorm": "attention_input_norm",
    "post_attention_layernorm": "ffn_input_norm",
    "attention.query_key_value": "qkv",
    "attention.dense": "attention_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
LAYER_NAMES = {
    f"{name}.{part}": f"{role}.{part}"
    for name, role in _LAYER_MODULES.items()
    for part in ("weight", "bias")
}


class GPTNeoX(TransformerModule):
    """What decoder and causal language model share."""

    model_types = ("gpt_neox",)

    @classmethod
    def config_from_hf(cls, hf_config: Mapping[str, Any]) -> GPTNeoXConfig:
        """config.json -> configuration. ``ValueError`` for options that are not supported."""
        hf = HFConfig(dict(hf_config), "GPT-NeoX", REQUIRED)
        base, scaling = rope_parameters(hf, hf.get("rotary_emb_base", 10000))
        config = GPTNeoXConfig(
            attention_probs_dropout_prob=hf.get("attention_probs_dropout_prob", 0.0),
            activation=Activation(hf["hidden_act"]),
            dtype=hf.dtype("float16"),
            hidden_dropout_prob=hf.get("hidden_dropout_prob", 0.0),
            hidden_width=hf["hidden_size"],
            intermediate_width=hf["intermediate_size"],
            layer_norm_eps=hf["layer_norm_eps"],
            n_attention_heads=hf["num_attention_heads"],
            n_hidden_layers=hf["num_hidden_layers"],
            n_pieces=hf["vocab_size"],
            n_positions=hf["max_position_embeddings"],
            model_max_length=hf["max_position_embeddings"],
            rotary_embedding_base=base,
            rotary_embedding_fraction=scaling.get(
                "partial_rotary_factor", hf.get("rotary_pct", 0.25)
            ),
            use_attention_bias=hf.get("attention_bias", True),
            use_parallel_attention=hf.get("use_parallel_residual", True),
        )
        config.rope_scaling = scaling  # type: ignore[attr-defined]
        return config

    @classmethod
    def spec_from_config(cls, config: GPTNeoXConfig) -> TransformerSpec:
        """Configuration -> what the core runs."""
        layer = config.layer
        attention, ffn = layer.attention, layer.feedforward
        rotary = attention.rotary_embeddings
        assert rotary is not None
        width = int(rotary.rotary_fraction * (attention.hidden_width // attention.n_query_heads))
        frequencies = rotary_frequencies(width, rotary.rotary_base)
        return TransformerSpec(
            {
                "hidden_width": attention.hidden_width,
                "n_layers": layer.n_hidden_layers,
                "n_pieces": config.embedding.n_pieces,
                "max_positions": config.model_max_length,
                "norm_eps": layer.layer_norm_eps,
                "attention_input_norm": 1,
                "ffn_input_norm": 1,
                "output_norm": 1,
                "parallel": int(attention.use_parallel_attention),
                "n_heads": attention.n_query_heads,
                "qkv_order": "grouped",
                "qkv_bias": int(attention.use_bias),
                "attention_output_bias": int(attention.use_bias),
                "causal": 1,
                "rotary_width": width,
                "intermediate_width": ffn.intermediate_width,
                "activation": ffn.activation.core_name,
                "ffn_bias": 1,
                "dtype": config.dtype,
            },
            scale_frequencies(frequencies, getattr(config, "rope_scaling", {})),
        )

    @classmethod
    def parameter_names(cls, config: GPTNeoXConfig) -> ParameterNames:
        """Checkpoint names -> roles."""
        return ParameterNames(
            prefixes=("gpt_neox.",),
            layer_prefix="layers.",
            model=MODEL_NAMES,
            layer=LAYER_NAMES,
            ignored=r"(rotary_emb\.inv_freq|attention\.(masked_)?bias)$",
        )


class GPTNeoXDecoder(GPTNeoX, DecoderModule):
    """GPT-NeoX without its output head."""
