"""MPT's configuration."""

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


class MPTConfig(TransformerConfig):
    """Widths, counts and options of an MPT model.

    ``use_bias`` is that of all linear layers and norms. ``n_key_value_heads`` None is as many as
    attention heads. ``clip_qkv`` limits queries, keys and values to that size; ``use_qk_norm``
    norms the queries of all heads together, and the keys; ``attention_scale`` None is one over the
    square root of a head's width. Where there is no ALiBi, ``use_learned_positions`` adds a table
    of ``model_max_length`` positions. Logits are multiplied by ``logit_scale``, a number or
    "inv_sqrt_d_model".
    """

    def __init__(
        self,
        *,
        attention_probs_dropout_prob: float = 0.0,
        activation: Activation = Activation.GELU,
        dtype: Any = "bfloat16",
        hidden_dropout_prob: float = 0.0,
        hidden_width: int = 4096,
        intermediate_width_multiplier: int = 4,
        layer_norm_eps: float = 1e-5,
        model_max_length: int = 2048,
        n_attention_heads: int = 32,
        n_hidden_layers: int = 32,
        n_pieces: int = 50432,
        use_bias: bool = False,
        n_key_value_heads: int | None = None,
        use_alibi: bool = True,
        alibi_max_bias: float = 8.0,
        use_learned_positions: bool = True,
        attention_scale: float | None = None,
        clip_qkv: float | None = None,
        use_qk_norm: bool = False,
        use_rms_norm: bool = False,
        logit_scale: float | str | None = None,
        tie_word_embeddings: bool | None = True,
    ) -> None:
        has_table = use_learned_positions and not use_alibi
        embedding = TransformerEmbeddingLayerConfig(
            hidden_dropout_prob,
            hidden_width,
            layer_norm_eps,
            model_max_length if has_table else None,
            n_pieces,
            None,
        )
        attention = TransformerAttentionLayerConfig(
            attention_probs_dropout_prob,
            hidden_width,
            n_attention_heads,
            n_attention_heads if n_key_value_heads is None else n_key_value_heads,
            rotary_embeddings=None,
            use_alibi=use_alibi,
            use_bias=use_bias,
            use_parallel_attention=False,
        )
        feedforward = TransformerFeedForwardLayerConfig(
            activation,
            hidden_width,
            intermediate_width_multiplier * hidden_width,
            use_bias=use_bias,
            use_gate=False,
        )
        layer = TransformerLayerConfig(
            attention, hidden_dropout_prob, feedforward, layer_norm_eps, n_hidden_layers
        )
        super().__init__(embedding, layer, dtype)
        self.model_max_length = model_max_length
        self.intermediate_width_multiplier = intermediate_width_multiplier
        self.alibi_max_bias = alibi_max_bias
        self.use_learned_positions = use_learned_positions
        self.attention_scale = attention_scale
        self.clip_qkv = clip_qkv
        self.use_qk_norm = use_qk_norm
        self.use_rms_norm = use_rms_norm
        self.logit_scale = logit_scale
        self.tie_word_embeddings = tie_word_embeddings
