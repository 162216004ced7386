"""Between config.json and a configuration's arguments, in both directions, from one table.

An architecture lists an ``HFKey`` for each key that it reads. A key that is present with the value
null counts as absent, unless its row says that null has a meaning. Keys that change the result and
have no row are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from ...dtype import MODEL_DTYPES, dtype_name
from ...layers.activations import Activation
from ..config import TransformerConfig

REQUIRED: Final = object()

#: Where the argument of a configuration's constructor is found in the object, unless it is an
#: attribute of the same name.
_PATHS = {
    "hidden_width": "layer.feedforward.hidden_width",
    "embedding_width": "embedding.embedding_width",
    "intermediate_width": "layer.feedforward.intermediate_width",
    "n_hidden_layers": "layer.n_hidden_layers",
    "n_layers_per_group": "layer.n_layers_per_group",
    "n_hidden_groups": "layer.n_hidden_groups",
    "n_attention_heads": "layer.attention.n_query_heads",
    "n_query_heads": "layer.attention.n_query_heads",
    "n_key_value_heads": "layer.attention.n_key_value_heads",
    "attention_probs_dropout_prob": "layer.attention.dropout_prob",
    "hidden_dropout_prob": "layer.dropout_prob",
    "activation": "layer.feedforward.activation",
    "embedding_dropout_prob": "embedding.dropout_prob",
    "n_pieces": "embedding.n_pieces",
    "n_types": "embedding.n_types",
    "n_positions": "embedding.n_positions",
    "layer_norm_eps": "layer.layer_norm_eps",
    "rms_norm_eps": "layer.layer_norm_eps",
    "rotary_embedding_base": "layer.attention.rotary_embeddings.rotary_base",
    "rotary_embedding_fraction": "layer.attention.rotary_embeddings.rotary_fraction",
    "use_alibi": "layer.attention.use_alibi",
    "use_bias": "layer.attention.use_bias",
    "use_attention_bias": "layer.attention.use_bias",
    "use_ffn_bias": "layer.feedforward.use_bias",
    "use_parallel_attention": "layer.attention.use_parallel_attention",
}

# The same functions under names that config.json may also use.
_ACTIVATION_ALIASES = {
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "swish": "silu",
}


def whole_number(value: Any) -> int:
    """A count. ``ValueError`` for anything but an integer or an integral float."""
    whole = value.is_integer() if isinstance(value, float) else isinstance(value, int)
    if isinstance(value, bool) or not whole:
        raise ValueError(f"must be a whole number, was: {value!r}")
    return int(value)


def count(value: Any) -> int:
    """``ValueError`` for anything but a positive whole number."""
    result = whole_number(value)
    if result < 1:
        raise ValueError(f"must be positive, was: {value!r}")
    return result


def number(value: Any) -> float:
    """``ValueError`` for anything but a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, was: {value!r}")
    return float(value)


def positive(value: Any) -> float:
    """``ValueError`` for anything but a positive number."""
    result = number(value)
    if not 0 < result < math.inf:
        raise ValueError(f"must be positive, was: {value!r}")
    return result


def flag(value: Any) -> bool:
    """``ValueError`` for anything but true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, was: {value!r}")
    return value


def activation(name: Any) -> Activation:
    """``hidden_act`` -> activation, by its documented names and transformers' other ones."""
    return Activation(_ACTIVATION_ALIASES.get(name, name) if isinstance(name, str) else name)


def activation_name(value: Activation) -> str:
    """The inverse of ``activation``."""
    return str(value.value)


@dataclass(frozen=True)
class HFKey:
    """One key of config.json and the argument that it becomes.

    ``default`` stands in for an absent key; without one the key is required. ``read`` converts the
    value, or raises ``ValueError``; ``write`` converts it back. A dot in a name looks into an
    object: ``attn_config.alibi``. ``aliases`` are other names, read where the first is absent.
    Where ``nullable``, null is None and not the default, and is written.
    """

    name: str
    argument: str
    read: Callable[[Any], Any] = whole_number
    default: Any = REQUIRED
    write: Callable[[Any], Any] = lambda value: value
    aliases: tuple[str, ...] = ()
    nullable: bool = False

    def value_of(self, config: TransformerConfig) -> Any:
        """The key's value for a configuration."""
        own = hasattr(config, self.argument)
        value = attrgetter(self.argument if own else _PATHS[self.argument])(config)
        return None if value is None else self.write(value)


class HFConfig:
    """config.json with null meaning absent. The keys of an object in it have its name and a dot
    before theirs."""

    def __init__(self, values: Mapping[str, Any], label: str) -> None:
        flat = dict(_flat(values))
        self.values = {key: value for key, value in flat.items() if value is not None}
        self.nulls = flat.keys() - self.values.keys()
        self.label = label

    def require(self, names: Iterable[str]) -> None:
        """``ValueError`` that names all missing keys at once."""
        missing = tuple(sorted(name for name in names if name not in self.values))
        if missing:
            raise ValueError(f"Missing keys in Hugging Face {self.label} model config: {missing}")

    def has_any(self, names: Iterable[str]) -> bool:
        """Whether one of the keys is there."""
        return any(name in self for name in names)

    def __getitem__(self, key: str) -> Any:
        self.require([key])
        return self.values[key]

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default`` where the key is absent or null."""
        return self.values.get(key, default)

    def read(self, key: HFKey) -> Any:
        """The argument that a key becomes. ``ValueError`` names the key."""
        names = [name for name in (key.name, *key.aliases) if name in self.values]
        value = self.values[names[0]] if names else None
        if value is None:
            if key.nullable and key.name in self.nulls:
                return None
            if key.default is REQUIRED:
                self.require([key.name])
            return key.default
        try:
            return key.read(value)
        except (TypeError, ValueError, OverflowError) as error:
            message = str(error)
            if message.startswith("must be"):
                message = f"{names[0]} {message}"
            raise ValueError(f"{self.label} config.json: {message}") from None

    def arguments(self, keys: Iterable[HFKey]) -> dict[str, Any]:
        """Arguments by name. Absent keys without a default value are left to the configuration."""
        keys = list(keys)
        self.require(
            key.name
            for key in keys
            if key.default is REQUIRED
            and not (key.nullable and key.name in self.nulls)
            and not self.has_any(key.aliases)
        )
        return {key.argument: self.read(key) for key in keys}

    def dtype(self, default: str) -> str:
        """``dtype`` (newer), else ``torch_dtype``, else ``default``."""
        try:
            return dtype_name(self.get("dtype", self.get("torch_dtype", default)), MODEL_DTYPES)
        except TypeError as error:
            raise ValueError(f"{self.label} config.json: {error}") from None

    def refuse(self, key: str, *allowed: Any) -> None:
        """``ValueError`` when the key has a value that we cannot honour; absent means the first of
        ``allowed``."""
        value = self.get(key, allowed[0])
        if value not in allowed:
            choices = ", ".join(repr(choice) for choice in allowed)
            raise ValueError(
                f"{self.label} config.json: {key} = {value!r} is not supported, only {choices}"
            )


def hidden_size_keys() -> tuple[HFKey, ...]:
    """Widths and counts under their usual names."""
    return (
        HFKey("hidden_size", "hidden_width"),
        HFKey("intermediate_size", "intermediate_width"),
        HFKey("num_hidden_layers", "n_hidden_layers"),
        HFKey("vocab_size", "n_pieces"),
        HFKey("hidden_act", "activation", activation, write=activation_name),
    )


def dropout_keys(
    default: Any = REQUIRED, attention: str = "attention_dropout", hidden: str = "hidden_dropout"
) -> tuple[HFKey, ...]:
    """The probabilities, which change nothing in inference but are part of the configuration;
    ``attention`` and ``hidden`` are their other names."""
    names = {"attention_probs_dropout_prob": attention, "hidden_dropout_prob": hidden}
    return tuple(
        HFKey(name, name, number, default, aliases=(other,)) for name, other in names.items()
    )


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with objects made of the keys that have a dot."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        place = result
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    return result


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
