"""Llama's configuration."""

from __future__ import annotations

from ...layers.activations import Activation
from ..config import (
    RotaryEmbeddingConfig,
    TransformerAttentionLayerConfig,
    TransformerConfig,
    TransformerEmbeddingLayerConfig,
    TransformerFeedForwardLayerConfig,
    TransformerLayerConfig,
)


class LlamaConfig(TransformerConfig):
    """Widths, counts and options of a Llama model. ``head_width`` None is the hidden width over
    the heads."""

    def __init__(
        self,
        *,
        attention_probs_dropout_prob: float = 0.0,
        activation: Activation = Activation.GELU,
        dtype: str = "float16",
        hidden_dropout_prob: float = 0.0,
        hidden_width: int = 2560,
        intermediate_width: int = 10240,
        rms_norm_eps: float = 1e-5,
        n_query_heads: int = 32,
        n_key_value_heads: int = 32,
        n_hidden_layers: int = 32,
        n_pieces: int = 50280,
        rotary_embedding_base: float = 10000,
        rotary_embedding_fraction: float = 0.25,
        head_width: int | None = None,
        n_positions: int | None = None,
        use_attention_bias: bool = False,
        use_ffn_bias: bool = False,
    ) -> None:
        embedding = TransformerEmbeddingLayerConfig(
            hidden_dropout_prob, hidden_width, rms_norm_eps, None, n_pieces, None
        )
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_query_heads,
            n_key_value_heads,
            RotaryEmbeddingConfig(rotary_embedding_base, rotary_embedding_fraction),
            use_alibi=False,
            use_bias=use_attention_bias,
            use_parallel_attention=False,
        )
        feedforward = TransformerFeedForwardLayerConfig(
            activation, hidden_width, intermediate_width, use_bias=use_ffn_bias, use_gate=True
        )
        layer = TransformerLayerConfig(
            attention, hidden_dropout_prob, feedforward, rms_norm_eps, n_hidden_layers
        )
        super().__init__(embedding, layer, dtype)
        self.head_width = head_width or hidden_width // n_query_heads
        self.n_positions = n_positions
        self.rope_scaling: dict[str, object] = {}
