"""GPT-NeoX's configuration."""

from __future__ import annotations

from typing import Any

from ...layers.activations import Activation
from ..config import (
    RotaryEmbeddingConfig,
    TransformerAttentionLayerConfig,
    TransformerConfig,
    TransformerEmbeddingLayerConfig,
    TransformerFeedForwardLayerConfig,
    TransformerLayerConfig,
)


class GPTNeoXConfig(TransformerConfig):
    """Widths, counts and options of a GPT-NeoX model.

    ``use_parallel_attention`` False gives the sequential residual of some checkpoints;
    ``rope_scaling`` is as in config.json, see `models.rotary`.
    """

    def __init__(
        self,
        *,
        attention_probs_dropout_prob: float = 0.0,
        activation: Activation = Activation.GELU,
        dtype: Any = "float16",
        hidden_dropout_prob: float = 0.0,
        hidden_width: int = 2560,
        intermediate_width: int = 10240,
        layer_norm_eps: float = 1e-5,
        n_attention_heads: int = 32,
        n_hidden_layers: int = 32,
        n_pieces: int = 50280,
        n_positions: int = 2048,
        model_max_length: int = 2048,
        rotary_embedding_base: float = 10000,
        rotary_embedding_fraction: float = 0.25,
        use_attention_bias: bool = True,
        use_parallel_attention: bool = True,
        rope_scaling: dict[str, Any] | None = None,
    ) -> None:
        embedding = TransformerEmbeddingLayerConfig(
            hidden_dropout_prob, hidden_width, layer_norm_eps, None, n_pieces, None
        )
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_attention_heads,
            n_attention_heads,
            RotaryEmbeddingConfig(rotary_embedding_base, rotary_embedding_fraction),
            use_alibi=False,
            use_bias=use_attention_bias,
            use_parallel_attention=use_parallel_attention,
        )
        feedforward = TransformerFeedForwardLayerConfig(
            activation, hidden_width, intermediate_width, use_bias=True, use_gate=False
        )
        layer = TransformerLayerConfig(
            attention, hidden_dropout_prob, feedforward, layer_norm_eps, n_hidden_layers
        )
        super().__init__(embedding, layer, dtype)
        self.n_positions = n_positions
        self.model_max_length = model_max_length
        self.use_attention_bias = use_attention_bias
        self.rope_scaling = rope_scaling or {}
