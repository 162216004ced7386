"""Llama's configuration."""

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


class LlamaConfig(TransformerConfig):
    """Widths, counts and options of a Llama model.

    ``n_key_value_heads`` None is one for each query head; ``head_width`` None the hidden width over
    the heads; ``n_positions`` the longest sequence,
    None for no limit; ``rope_scaling`` is as in config.json, see `models.rotary`. A model from a
    GGUF file may rotate neighbouring features (``rotary_interleaved``) and divide the angle of each
    pair by one of ``rotary_divisors``. With a ``window`` each piece sees only itself and those less
    than ``window`` places before it, in the layers of which ``local_layers`` says so, None for all.
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
        rms_norm_eps: float = 1e-5,
        n_query_heads: int = 32,
        n_key_value_heads: int | None = 32,
        n_hidden_layers: int = 32,
        n_pieces: int = 50280,
        rotary_embedding_base: float = 10000,
        rotary_embedding_fraction: float = 0.25,
        head_width: int | None = None,
        n_positions: int | None = None,
        use_attention_bias: bool = False,
        use_ffn_bias: bool = False,
        rope_scaling: dict[str, Any] | None = None,
        rotary_interleaved: bool = False,
        rotary_divisors: tuple[float, ...] | None = None,
        window: int | None = None,
        local_layers: tuple[bool, ...] | None = None,
    ) -> None:
        embedding = TransformerEmbeddingLayerConfig(
            hidden_dropout_prob, hidden_width, rms_norm_eps, None, n_pieces, None
        )
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_query_heads,
            n_query_heads if n_key_value_heads is None else n_key_value_heads,
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
        self.head_width = head_width
        self.n_positions = n_positions
        self.use_attention_bias = use_attention_bias
        self.use_ffn_bias = use_ffn_bias
        self.rope_scaling = rope_scaling or {}
        self.rotary_interleaved = rotary_interleaved
        self.rotary_divisors = rotary_divisors
        self.window = window
        self.local_layers = local_layers
