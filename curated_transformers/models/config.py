"""The generic parts of configurations: what all architectures have, nested as documented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..dtype import MODEL_DTYPES, dtype_name
from ..layers.activations import Activation


@dataclass
class RotaryEmbeddingConfig:
    """The base of the angles and the fraction of each head that rotates."""

    rotary_base: float
    rotary_fraction: float


@dataclass
class TransformerAttentionLayerConfig:
    """The attention of each layer."""

    dropout_prob: float
    hidden_width: int
    n_query_heads: int
    n_key_value_heads: int
    rotary_embeddings: RotaryEmbeddingConfig | None
    use_alibi: bool
    use_bias: bool
    use_parallel_attention: bool


@dataclass
class TransformerEmbeddingLayerConfig:
    """The embedding layer. ``None`` for positions or types: there is no such table."""

    dropout_prob: float
    embedding_width: int
    layer_norm_eps: float
    n_positions: int | None
    n_pieces: int
    n_types: int | None


@dataclass
class TransformerFeedForwardLayerConfig:
    """The feed-forward half of each layer."""

    activation: Activation
    hidden_width: int
    intermediate_width: int
    use_bias: bool
    use_gate: bool

    def __post_init__(self) -> None:
        self.activation = Activation(self.activation)  # of its name, too


@dataclass
class TransformerLayerConfig:
    """One layer, and how many there are."""

    attention: TransformerAttentionLayerConfig
    dropout_prob: float
    feedforward: TransformerFeedForwardLayerConfig
    layer_norm_eps: float
    n_hidden_layers: int


class TransformerConfig:
    """What all architectures' configurations share.

    ``dtype`` is the element type that checkpoints are loaded in and hidden states come in: a name,
    a NumPy dtype or a ``torch.dtype``, kept as a name. ``tie_word_embeddings`` says whether the
    output head is the matrix of the piece embeddings; None: where a checkpoint has no head of its
    own. What an architecture adds are further attributes; two configurations are equal when they
    are of one class and all attributes are.
    """

    def __init__(
        self,
        embedding: TransformerEmbeddingLayerConfig,
        layer: TransformerLayerConfig,
        dtype: Any,
    ) -> None:
        self.embedding = embedding
        self.layer = layer
        self.dtype: str = dtype_name(dtype, MODEL_DTYPES)
        self.tie_word_embeddings: bool | None = None

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # its parts can be changed

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"
