"""What the core runs: the program's specification, as an architecture states it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import _core
from .config import TransformerConfig
from .rotary import make_rotary

MAX_WIDTH = 1 << 18  # of heads, as the core has it

#: Where the norms are, in the core's words: before each half of a layer and after the last layer,
#: or after each sum and after the embeddings.
PRE_NORM: Final = {"attention_input_norm": 1, "ffn_input_norm": 1, "output_norm": 1}
POST_NORM: Final = {"embedding_norm": 1, "attention_residual_norm": 1, "ffn_residual_norm": 1}


@dataclass
class TransformerSpec:
    """Fields of the core's specification (``_core.SPEC_DEFAULTS``), and vectors by role that no
    checkpoint holds: rotary frequencies, which layers are local."""

    fields: dict[str, Any]
    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def core_fields(self) -> dict[str, int | float]:
        """The fields with names of activations, norms and dtypes replaced by the core's numbers."""
        tables = {
            "activation": _core.ACTIVATIONS,
            "norm_kind": _core.NORMS,
            "qkv_order": _core.QKV_ORDERS,
            "qk_norm": _core.QK_NORMS,
            "position_rule": _core.POSITION_RULES,
            "dtype": _core.DTYPES,
        }
        return {
            name: tables[name][value] if name in tables else value
            for name, value in self.fields.items()
        }


def common_fields(config: TransformerConfig) -> dict[str, Any]:
    """What the generic parts of a configuration say."""
    embedding, layer = config.embedding, config.layer
    attention, ffn = layer.attention, layer.feedforward
    return {
        "hidden_width": attention.hidden_width,
        "embedding_width": embedding.embedding_width,
        "n_layers": layer.n_hidden_layers,
        "n_pieces": embedding.n_pieces,
        "n_positions": embedding.n_positions or 0,
        "n_types": embedding.n_types or 0,
        "norm_eps": layer.layer_norm_eps,
        "n_heads": attention.n_query_heads,
        "n_kv_heads": attention.n_key_value_heads,
        "qkv_bias": int(attention.use_bias),
        "attention_output_bias": int(attention.use_bias),
        "parallel": int(attention.use_parallel_attention),
        "alibi": int(attention.use_alibi),
        "intermediate_width": ffn.intermediate_width,
        "activation": ffn.activation.core_name,
        "gated": int(ffn.use_gate),
        "ffn_bias": int(ffn.use_bias),
        "dtype": config.dtype,
    }


def add_rotary(spec: TransformerSpec, config: TransformerConfig) -> TransformerSpec:
    """Adds the angles of a configuration's rotary embeddings, scaled as its ``rope_scaling`` says,
    where it has any."""
    attention = config.layer.attention
    rotary = attention.rotary_embeddings
    if rotary is None or attention.n_query_heads < 1:  # which the core refuses
        return spec
    if not 0 <= rotary.rotary_fraction <= 1:
        raise ValueError(
            "Rotary embedding fraction should be between 0 and 1 inclusive, was: "
            f"{rotary.rotary_fraction}"
        )
    heads = attention.n_query_heads
    head_width = spec.fields.get("head_width") or (attention.hidden_width // heads if heads else 0)
    width = int(rotary.rotary_fraction * head_width)
    if width <= 0:
        return spec
    if width > MAX_WIDTH:
        raise ValueError(f"the rotary width must be at most {MAX_WIDTH}, was: {width}")
    made = make_rotary(width, rotary.rotary_base, getattr(config, "rope_scaling", {}))
    spec.fields |= {"rotary_width": width, "rotary_factor": made.factor}
    if made.limit is not None:
        longest = spec.fields.get("max_positions") or made.limit
        spec.fields["max_positions"] = min(longest, made.limit)
    divisors = np.asarray(getattr(config, "rotary_divisors", None) or 1.0, dtype=np.float32)
    spec.vectors["rotary.frequencies"] = made.frequencies / divisors
    return spec


def add_window(
    spec: TransformerSpec, window: int | None, local_layers: Sequence[bool] | None
) -> TransformerSpec:
    """Adds the window of a configuration that has one, of all layers or of the local ones."""
    if window is not None:
        spec.fields["window"] = window
        if local_layers is not None:
            spec.fields["local_layers"] = 1
            spec.vectors["attention.local"] = np.asarray(local_layers, dtype=np.float32)
    return spec
