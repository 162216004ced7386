"""Which layers see only a window: between config.json's ``layer_types`` and a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .hf_hub.conversion import HFConfig, whole_number
from .llama.config import LlamaConfig

MAX_LAYERS = 4096  # as the core has it
_LOCAL = {"sliding_attention": True, "full_attention": False}


def read_layer_types(
    hf: HFConfig, window: int | None, default: Callable[[int], bool]
) -> dict[str, Any]:
    """The arguments ``window`` and ``local_layers``; ``default`` says of the number of a layer
    whether it is local where config.json does not.

    Raises ``ValueError`` for types that are unknown or too few, and for local layers without a
    window.
    """
    types, n_layers = hf.get("layer_types"), whole_number(hf["num_hidden_layers"])
    if n_layers > MAX_LAYERS:
        raise ValueError(
            f"{hf.label} config.json: num_hidden_layers must be at most {MAX_LAYERS}, was: "
            f"{n_layers}"
        )
    if types is None:
        local = [default(i) for i in range(n_layers)]
    else:
        if not isinstance(types, list) or any(name not in _LOCAL for name in types):
            raise ValueError(
                f"{hf.label} config.json: layer_types must be a list of {' and '.join(_LOCAL)}, "
                f"was: {types!r}"
            )
        if len(types) != n_layers:
            raise ValueError(
                f"{hf.label} config.json: layer_types has {len(types)} entries for {n_layers} "
                "layers"
            )
        local = [_LOCAL[name] for name in types]
    if not any(local):
        return {"window": None, "local_layers": None}
    if window is None:
        raise ValueError(
            f"{hf.label} config.json: layer_types has sliding layers, but there is no "
            "sliding_window"
        )
    return {"window": window, "local_layers": None if all(local) else tuple(local)}


def write_layer_types(config: LlamaConfig) -> dict[str, Any]:
    """The keys that ``read_layer_types`` reads."""
    n_layers = config.layer.n_hidden_layers
    local = config.local_layers or (config.window is not None,) * n_layers
    names = {flag: name for name, flag in _LOCAL.items()}
    return {"sliding_window": config.window, "layer_types": [names[flag] for flag in local]}
