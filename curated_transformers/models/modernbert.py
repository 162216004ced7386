"""ModernBERT (Warner et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..layers.activations import Activation
from .config import (
    RotaryEmbeddingConfig,
    TransformerAttentionLayerConfig,
    TransformerConfig,
    TransformerEmbeddingLayerConfig,
    TransformerFeedForwardLayerConfig,
    TransformerLayerConfig,
)
from .hf_hub.conversion import (
    HFConfig,
    HFKey,
    activation,
    activation_name,
    flag,
    number,
    whole_number,
)
from .parameters import ParameterNames
from .rotary import Rope, make_rotary, read_rope
from .spec import PRE_NORM, TransformerSpec, add_rotary, common_fields
from .transformer import TransformerEncoder

#: What config.json calls a layer that sees all pieces, and one that sees those around it.
GLOBAL, LOCAL = "full_attention", "sliding_attention"
GLOBAL_BASE, LOCAL_BASE = 160000.0, 10000.0
#: What the core takes.
MAX_LAYERS = 4096


def half_window(value: Any) -> int:
    """``local_attention``, of which half is on either side -> how far away is near."""
    if whole_number(value) < 0:
        raise ValueError(f"must be 0 or more, was: {value!r}")
    return whole_number(value) // 2


class ModernBERTConfig(TransformerConfig):
    """Widths, counts and options of a ModernBERT encoder; the defaults are ModernBERT-base's.

    Layers that ``local_layers`` marks let a piece see those up to ``local_reach`` places away, and
    have rotary embeddings of their own. ``rope_scaling`` and ``local_rope_scaling`` are as in
    config.json, see `models.rotary`.
    """

    def __init__(
        self,
        *,
        dtype: Any = "float32",
        hidden_width: int = 768,
        intermediate_width: int = 1152,
        n_attention_heads: int = 12,
        n_hidden_layers: int = 22,
        attention_probs_dropout_prob: float = 0.0,
        embedding_dropout_prob: float = 0.0,
        hidden_dropout_prob: float = 0.0,
        activation: Activation = Activation.GELU,
        n_pieces: int = 50368,
        model_max_length: int = 8192,
        layer_norm_eps: float = 1e-5,
        use_attention_bias: bool = False,
        use_ffn_bias: bool = False,
        use_norm_bias: bool = False,
        local_layers: tuple[bool, ...] | None = None,
        local_reach: int = 64,
        rotary_embedding_base: float = GLOBAL_BASE,
        local_rotary_embedding_base: float = LOCAL_BASE,
        rope_scaling: dict[str, Any] | None = None,
        local_rope_scaling: dict[str, Any] | None = None,
    ) -> None:
        embedding = TransformerEmbeddingLayerConfig(
            embedding_dropout_prob, hidden_width, layer_norm_eps, None, n_pieces, None
        )
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_attention_heads,
            n_attention_heads,
            RotaryEmbeddingConfig(rotary_embedding_base, 1.0),
            use_alibi=False,
            use_bias=use_attention_bias,
            use_parallel_attention=False,
        )
        feedforward = TransformerFeedForwardLayerConfig(
            activation, hidden_width, intermediate_width, use_bias=use_ffn_bias, use_gate=True
        )
        layer = TransformerLayerConfig(
            attention, hidden_dropout_prob, feedforward, layer_norm_eps, n_hidden_layers
        )
        super().__init__(embedding, layer, dtype)
        if local_layers is None:
            local_layers = tuple(i % 3 != 0 for i in range(n_hidden_layers))
        self.model_max_length = model_max_length
        self.use_norm_bias = use_norm_bias
        self.local_layers = local_layers
        self.local_reach = local_reach
        self.local_rotary_embedding_base = local_rotary_embedding_base
        self.rope_scaling = rope_scaling or {}
        self.local_rope_scaling = local_rope_scaling or {}


class ModernBERTEncoder(TransformerEncoder[ModernBERTConfig]):
    """ModernBERT: pre-norm layers without one before the first attention, gated feed-forward,
    rotary embeddings, and layers that see only what is near."""

    model_types = ("modernbert",)
    hf_label = "ModernBERT"
    hf_class = "ModernBert"
    config_class = ModernBERTConfig
    hf_keys = (
        HFKey("hidden_size", "hidden_width"),
        HFKey("intermediate_size", "intermediate_width"),
        HFKey("num_hidden_layers", "n_hidden_layers"),
        HFKey("num_attention_heads", "n_attention_heads"),
        HFKey("vocab_size", "n_pieces"),
        HFKey("hidden_activation", "activation", activation, Activation.GELU, activation_name),
        HFKey("max_position_embeddings", "model_max_length", whole_number, 8192),
        HFKey("norm_eps", "layer_norm_eps", number, 1e-5),
        HFKey("local_attention", "local_reach", half_window, 64, lambda reach: 2 * reach),
        HFKey("attention_bias", "use_attention_bias", flag, False),
        HFKey("mlp_bias", "use_ffn_bias", flag, False),
        HFKey("norm_bias", "use_norm_bias", flag, False),
        HFKey("attention_dropout", "attention_probs_dropout_prob", number, 0.0),
        HFKey("embedding_dropout", "embedding_dropout_prob", number, 0.0),
        HFKey("mlp_dropout", "hidden_dropout_prob", number, 0.0),
    )
    parameter_names = ParameterNames(
        model={
            "embeddings.tok_embeddings": "piece_embeddings",
            "embeddings.norm": "embedding_norm",
            "final_norm": "output_norm",
        },
        layer={
            "attn_norm": "attention_input_norm",
            "attn.Wqkv": "qkv",
            "attn.Wo": "attention_output",
            "mlp_norm": "ffn_input_norm",
            "mlp.Wi": ("ffn_gate", "ffn_up"),
            "mlp.Wo": "ffn_down",
        },
        prefix="model.",
        ignored=r"^(head\.|decoder\.|classifier\.)",
    )

    @classmethod
    def arguments_from_hf(cls, hf: HFConfig) -> dict[str, Any]:
        if "head_dim" in hf:  # nothing but what it is anyway
            heads = whole_number(hf["num_attention_heads"])
            hf.refuse("head_dim", whole_number(hf["hidden_size"]) // max(heads, 1))
        around, near = _ropes(hf)
        return {
            "local_layers": _local_layers(hf),
            "rotary_embedding_base": around.base,
            "local_rotary_embedding_base": near.base,
            "rope_scaling": around.scaling,
            "local_rope_scaling": near.scaling,
        }

    @classmethod
    def values_to_hf(cls, config: ModernBERTConfig) -> dict[str, Any]:
        rotary = config.layer.attention.rotary_embeddings
        assert rotary is not None
        return {
            "layer_types": [LOCAL if local else GLOBAL for local in config.local_layers],
            "rope_parameters": {
                GLOBAL: _rope_to_hf(rotary.rotary_base, config.rope_scaling),
                LOCAL: _rope_to_hf(config.local_rotary_embedding_base, config.local_rope_scaling),
            },
        }

    @classmethod
    def spec_from_config(cls, config: ModernBERTConfig) -> TransformerSpec:
        n_layers = config.layer.n_hidden_layers
        if len(config.local_layers) != n_layers:
            raise ValueError(
                f"local_layers says of {len(config.local_layers)} layers whether they are local, "
                f"but there are {n_layers}"
            )
        spec = TransformerSpec(common_fields(config) | PRE_NORM)
        spec.fields |= {
            "embedding_norm": 1,
            "norm_bias": int(config.use_norm_bias),
            "bare_first_layer": 1,
            "max_positions": config.model_max_length,
        }
        add_rotary(spec, config)
        if any(config.local_layers) and "rotary_width" in spec.fields:
            _add_local(spec, spec.fields["rotary_width"], config)
        return spec


def _add_local(spec: TransformerSpec, width: int, config: ModernBERTConfig) -> None:
    rotary = make_rotary(width, config.local_rotary_embedding_base, config.local_rope_scaling)
    if rotary.factor != 1 or rotary.limit is not None:
        kind = config.local_rope_scaling["rope_type"]
        raise ValueError(f"rotary scaling of type `{kind}` is not supported in local layers")
    spec.fields |= {"window": config.local_reach + 1, "local_layers": 1, "rotary_local": 1}
    spec.vectors["rotary.local_frequencies"] = rotary.frequencies
    spec.vectors["attention.local"] = np.array(config.local_layers, dtype=np.float32)


def _local_layers(hf: HFConfig) -> tuple[bool, ...]:
    """``layer_types``, or every so many layers a global one, from the first on."""
    n_layers = whole_number(hf["num_hidden_layers"])
    types = hf.get("layer_types")
    if types is None:
        every = HFKey("global_attn_every_n_layers", "local_layers", whole_number, 3)
        step = hf.read(every)
        if n_layers > MAX_LAYERS:
            raise ValueError(f"{hf.label} config.json: num_hidden_layers is too large: {n_layers}")
        if step < 1:
            raise ValueError(f"{hf.label} config.json: {every.name} must be positive, was: {step}")
        return tuple(i % step != 0 for i in range(n_layers))
    if not isinstance(types, list) or len(types) != n_layers or set(types) - {GLOBAL, LOCAL}:
        raise ValueError(
            f"{hf.label} config.json: layer_types must be `{GLOBAL}` or `{LOCAL}` for each of "
            f"{n_layers} layers, was: {types!r}"
        )
    return tuple(kind == LOCAL for kind in types)


def _ropes(hf: HFConfig) -> tuple[Rope, Rope]:
    """Of global and of local layers: nested by layer type in newer files, bases of their own names
    in older ones, where a scaling is of both."""
    both = hf.get("rope_scaling", {})
    nested = hf.get("rope_parameters", {})
    ropes = []
    for kind, key, base in (
        (GLOBAL, "global_rope_theta", GLOBAL_BASE),
        (LOCAL, "local_rope_theta", LOCAL_BASE),
    ):
        found = nested.get(kind) if isinstance(nested, Mapping) else nested
        if not isinstance(both, Mapping) or not isinstance(found, Mapping | None):
            raise ValueError(
                f"{hf.label} config.json: rope_parameters must be an object for each of `{GLOBAL}` "
                f"and `{LOCAL}`, and rope_scaling an object"
            )
        values = {**(found or {}), **both}
        values.setdefault("rope_theta", hf.get(key, base))
        rope = read_rope(hf, base, values)
        if rope.fraction not in (None, 1.0):
            raise ValueError(
                f"{hf.label} config.json: partial_rotary_factor = {rope.fraction} is not "
                "supported, only 1.0"
            )
        ropes.append(rope)
    return ropes[0], ropes[1]


def _rope_to_hf(base: float, scaling: Mapping[str, Any]) -> dict[str, Any]:
    return {"rope_type": "default", **scaling, "rope_theta": base}
