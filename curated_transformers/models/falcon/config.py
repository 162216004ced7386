"""Falcon's configuration."""

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


class FalconConfig(TransformerConfig):
    """Widths, counts and options of a Falcon model.

    ``new_decoder_architecture`` shares each key and value head among some query heads and is always
    parallel; the old one has a single key and value head, or one for each query head. Parallel
    layers of the new one have ``n_parallel_layer_norms`` norms, 2 by default, one for attention and
    one for the feed-forward half; those of the old one share a single norm. ``intermediate_width``
    None is four times the hidden width; ``n_positions`` the longest sequence of rotary embeddings,
    None for no limit; ``rope_scaling`` is as in config.json, see `models.rotary`. ``use_alibi``
    leaves rotary embeddings out. In a model from a GGUF file all queries come first, then all
    keys, then all values (``qkv_order`` "concatenated").
    """

    def __init__(
        self,
        *,
        attention_probs_dropout_prob: float = 0.0,
        dtype: Any = "bfloat16",
        hidden_dropout_prob: float = 0.0,
        hidden_width: int = 2560,
        layer_norm_eps: float = 1e-5,
        n_query_heads: int = 71,
        n_key_value_heads: int = 1,
        n_hidden_layers: int = 32,
        n_pieces: int = 50280,
        new_decoder_architecture: bool = False,
        rotary_embedding_base: float = 10000,
        rotary_embedding_fraction: float = 0.25,
        use_alibi: bool = False,
        use_bias: bool = False,
        use_parallel_attention: bool = True,
        activation: Activation = Activation.GELU,
        intermediate_width: int | None = None,
        n_parallel_layer_norms: int | None = None,
        n_positions: int | None = None,
        rope_scaling: dict[str, Any] | None = None,
        qkv_order: str = "grouped",
    ) -> None:
        if not new_decoder_architecture and n_key_value_heads not in (1, n_query_heads):
            raise ValueError(
                "n_key_value_heads of Falcon's old decoder architecture must be 1 or the number of "
                f"query heads ({n_query_heads}), was: {n_key_value_heads}"
            )
        if n_parallel_layer_norms is None:
            n_parallel_layer_norms = 2 if new_decoder_architecture else 1
        if n_parallel_layer_norms not in ((1, 2) if new_decoder_architecture else (1,)):
            raise ValueError(
                "num_ln_in_parallel_attn must be 1 in Falcon's old decoder architecture, 1 or 2 in "
                f"the new one, was: {n_parallel_layer_norms}"
            )
        embedding = TransformerEmbeddingLayerConfig(
            hidden_dropout_prob, hidden_width, layer_norm_eps, None, n_pieces, None
        )
        rotary = RotaryEmbeddingConfig(rotary_embedding_base, rotary_embedding_fraction)
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_query_heads,
            n_key_value_heads,
            None if use_alibi else rotary,
            use_alibi=use_alibi,
            use_bias=use_bias,
            use_parallel_attention=use_parallel_attention,
        )
        feedforward = TransformerFeedForwardLayerConfig(
            activation,
            hidden_width,
            4 * hidden_width if intermediate_width is None else intermediate_width,
            use_bias=use_bias,
            use_gate=False,
        )
        layer = TransformerLayerConfig(
            attention, hidden_dropout_prob, feedforward, layer_norm_eps, n_hidden_layers
        )
        super().__init__(embedding, layer, dtype)
        self.new_decoder_architecture = new_decoder_architecture
        self.n_parallel_layer_norms = n_parallel_layer_norms
        self.n_positions = n_positions
        self.rope_scaling = {} if use_alibi else rope_scaling or {}
        self.qkv_order = qkv_order

    @property
    def is_parallel(self) -> bool:
        """Whether both halves of a layer read its input."""
        return self.new_decoder_architecture or self.layer.attention.use_parallel_attention
