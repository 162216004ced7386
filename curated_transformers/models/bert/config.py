"""BERT's configuration."""

from __future__ import annotations

from typing import Any

from ...layers.activations import Activation
from ..config import (
    TransformerAttentionLayerConfig,
    TransformerConfig,
    TransformerEmbeddingLayerConfig,
    TransformerFeedForwardLayerConfig,
    TransformerLayerConfig,
)


class BERTConfig(TransformerConfig):
    """Widths, counts and options of a BERT encoder; the defaults are BERT-base's."""

    def __init__(
        self,
        *,
        dtype: Any = "float32",
        embedding_width: int = 768,
        hidden_width: int = 768,
        intermediate_width: int = 3072,
        n_attention_heads: int = 12,
        n_hidden_layers: int = 12,
        attention_probs_dropout_prob: float = 0.1,
        hidden_dropout_prob: float = 0.1,
        activation: Activation = Activation.GELU,
        n_pieces: int = 30000,
        n_types: int | None = 2,
        n_positions: int = 512,
        model_max_length: int = 512,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        embedding = TransformerEmbeddingLayerConfig(
            hidden_dropout_prob, embedding_width, layer_norm_eps, n_positions, n_pieces, n_types
        )
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_attention_heads,
            n_attention_heads,
            rotary_embeddings=None,
            use_alibi=False,
            use_bias=True,
            use_parallel_attention=False,
        )
        feedforward = TransformerFeedForwardLayerConfig(
            activation, hidden_width, intermediate_width, use_bias=True, use_gate=False
        )
        layer = TransformerLayerConfig(
            attention, hidden_dropout_prob, feedforward, layer_norm_eps, n_hidden_layers
        )
        super().__init__(embedding, layer, dtype)
        self.model_max_length = model_max_length
