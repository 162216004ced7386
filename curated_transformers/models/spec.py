"""What an architecture file states: the program's specification and where each weight comes
from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core


@dataclass
class TransformerSpec:
    """Fields of the core's specification (``_core.SPEC_DEFAULTS``) and the rotary frequencies."""

    fields: dict[str, Any]
    frequencies: npt.NDArray[np.float32] | None = None

    def core_fields(self) -> dict[str, int | float]:
        """The fields with names of activations, norms and dtypes replaced by the core's numbers."""
        tables = {
            "activation": _core.ACTIVATIONS,
            "norm_kind": _core.NORMS,
            "qkv_order": _core.QKV_ORDERS,
            "qk_norm": _core.QK_NORMS,
            "position_rule": _core.POSITION_RULES,
            "dtype": _core.DTYPES,
        }
        return {
            name: tables[name][value] if name in tables else value
            for name, value in self.fields.items()
        }


@dataclass
class ParameterNames:
    """Checkpoint name -> role.

    ``model`` and ``layer`` map names to roles; a layer's names follow ``layer_prefix`` and the
    number. ``prefixes`` may stand before all of them. A name that matches ``ignored`` is dropped on
    purpose; any other unknown name is an error, since it may change the result.
    """

    prefixes: tuple[str, ...]
    layer_prefix: str
    model: dict[str, str]
    layer: dict[str, str]
    ignored: str
    renames: tuple[tuple[str, str], ...] = field(default=())

    def roles(self, names: Iterator[str]) -> Iterator[tuple[str, str, int]]:
        """Triples of checkpoint name, role and layer (-1 for the whole model)."""
        layer_name = re.compile(re.escape(self.layer_prefix) + r"(\d+)\.(.+)")
        ignored = re.compile(self.ignored)
        for name in names:
            bare = name
            for prefix in self.prefixes:
                if bare.startswith(prefix):
                    bare = bare[len(prefix) :]
                    break
            for old, new in self.renames:
                bare = re.sub(old, new, bare)
            match = layer_name.fullmatch(bare)
            if match and match[2] in self.layer:
                yield name, self.layer[match[2]], int(match[1])
            elif bare in self.model:
                yield name, self.model[bare], -1
            elif not ignored.search(bare):
                raise ValueError(
                    f"the checkpoint holds `{name}`, which this architecture does not have"
                )
