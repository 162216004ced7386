"""The generic parts of configurations, and reading config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..layers.activations import Activation

DTYPES = {
    "float32": "float32",
    "float": "float32",
    "float16": "float16",
    "half": "float16",
    "bfloat16": "bfloat16",
}


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
    """The embedding layer."""

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


@dataclass
class TransformerLayerConfig:
    """One layer, and how many there are."""

    attention: TransformerAttentionLayerConfig
    dropout_prob: float
    feedforward: TransformerFeedForwardLayerConfig
    layer_norm_eps: float
    n_hidden_layers: int


@dataclass
class TransformerConfig:
    """What all architectures' configurations share."""

    embedding: TransformerEmbeddingLayerConfig
    layer: TransformerLayerConfig
    dtype: str


class HFConfig:
    """config.json with null meaning absent, and an error that names all missing keys at once."""

    def __init__(self, values: dict[str, Any], label: str, required: tuple[str, ...]) -> None:
        self.values = {key: value for key, value in values.items() if value is not None}
        missing = tuple(sorted(key for key in required if key not in self.values))
        if missing:
            raise ValueError(f"Missing keys in Hugging Face {label} model config: {missing}")

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` where the key is absent or null."""
        return self.values.get(key, default)

    def dtype(self, default: str) -> str:
        """``dtype``, else ``torch_dtype``, else ``default``."""
        name = str(self.get("dtype", self.get("torch_dtype", default))).removeprefix("torch.")
        if name not in DTYPES:
            raise ValueError(f"Invalid torch dtype `{name}`")
        return DTYPES[name]

    def refuse(self, key: str, *allowed: Any) -> None:
        """``ValueError`` when the key has a value that we cannot honour."""
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise ValueError(f"config.json: {key} = {value!r} is not supported, only {allowed}")
