"""RoBERTa's configuration."""

from __future__ import annotations

from typing import Any

from ...layers.activations import Activation
from ..bert.config import BERTConfig


class RoBERTaConfig(BERTConfig):
    """Widths, counts and options of a RoBERTa encoder; the defaults are RoBERTa-base's.

    Positions start behind ``padding_id``, so that the table of ``n_positions`` rows serves
    ``n_positions - (padding_id + 1)`` pieces.
    """

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
        n_pieces: int = 50265,
        n_types: int | None = 1,
        n_positions: int = 514,
        model_max_length: int = 512,
        layer_norm_eps: float = 1e-5,
        padding_id: int = 1,
    ) -> None:
        super().__init__(
            dtype=dtype,
            embedding_width=embedding_width,
            hidden_width=hidden_width,
            intermediate_width=intermediate_width,
            n_attention_heads=n_attention_heads,
            n_hidden_layers=n_hidden_layers,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            hidden_dropout_prob=hidden_dropout_prob,
            activation=activation,
            n_pieces=n_pieces,
            n_types=n_types,
            n_positions=n_positions,
            model_max_length=model_max_length,
            layer_norm_eps=layer_norm_eps,
        )
        self.padding_id = padding_id
