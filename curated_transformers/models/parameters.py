"""What checkpoints call the parameters, what this package calls them, and the roles they have.

Three names for one thing: ``encoder.layer.3.attention.self.query.weight`` in a checkpoint is
``layers.3.mha.query.weight`` here, and the role ``query.weight`` of layer 3 in the core. An
architecture lists its checkpoint's modules and their roles; the rest follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .._core import Tensor

Roles = str | tuple[str, ...]

#: Role -> module as this package calls it.
_MODULES: dict[Roles, str] = {
    "piece_embeddings": "embeddings.piece_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "type_embeddings": "embeddings.type_embeddings",
    "embedding_norm": "embeddings.embed_output_layer_norm",
    "embedding_projection": "embeddings.projection",
    "relative_attention_bias": "relative_attention_bias",
    "output_norm": "output_layer_norm",
    "head": "output_embeddings",
    "attention_input_norm": "attn_input_layer_norm",
    "attention_output_norm": "attn_output_layer_norm",
    "attention_residual_norm": "attn_residual_layer_norm",
    "ffn_input_norm": "ffn_input_layer_norm",
    "ffn_output_norm": "ffn_output_layer_norm",
    "ffn_residual_norm": "ffn_residual_layer_norm",
    "qkv": "mha.input",
    "query": "mha.query",
    "key": "mha.key",
    "value": "mha.value",
    "query_norm": "mha.query_norm",
    "key_norm": "mha.key_norm",
    "attention_output": "mha.output",
    "ffn_gate": "ffn.gate",
    "ffn_up": "ffn.intermediate",
    "ffn_down": "ffn.output",
    ("ffn_gate", "ffn_up"): "ffn.gate_intermediate",
}

#: The roles of linear layers; the other matrices are tables.
_LINEAR = frozenset(
    (
        "embedding_projection",
        "head",
        *("qkv", "query", "key", "value", "attention_output"),
        *("ffn_gate", "ffn_up", "ffn_down"),
    )
)


@dataclass(frozen=True)
class Parameter:
    """A parameter that was found: its name here, its roles (several for a fused matrix, whose rows
    they share equally), and the numbers of its layer, outermost first; none for the whole model."""

    name: str
    roles: tuple[str, ...]
    place: tuple[int, ...]

    @property
    def is_head(self) -> bool:
        """Whether it belongs to the output head."""
        return self.roles[0].startswith("head.")

    @property
    def is_linear_matrix(self) -> bool:
        """Whether it is what a linear layer multiplies."""
        module, _, part = self.roles[0].rpartition(".")
        return part == "weight" and module in _LINEAR


@dataclass(frozen=True)
class ParameterNames:
    """The modules of a checkpoint and their roles.

    ``model`` and ``layer`` map modules to roles; those of a layer follow ``layer_path``, in which
    braces stand for numbers. A tuple of roles is a fused matrix. ``prefix`` stands before all names
    but the head's in the checkpoint of a model with a head, and may stand there or be missing
    elsewhere. ``renames`` are regular expressions applied to a name first. What matches ``ignored``
    is dropped on purpose. ``curated`` says what this package calls a module where its role does not
    tell; ``transforms`` converts the weight of a role, which is not a linear layer's.
    """

    model: Mapping[str, str]
    layer: Mapping[str, Roles]
    layer_path: str = "layers.{}."
    prefix: str = ""
    ignored: str = r"(?!)"
    renames: tuple[tuple[str, str], ...] = ()
    curated: Mapping[str, str] = field(default_factory=dict)
    curated_layer_path: str = "layers.{}."
    transforms: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def find(self, name: str) -> Parameter | None:
        """What a checkpoint's name stands for; None for a name that has no role."""
        bare = name.removeprefix(self.prefix)
        for old, new in self.renames:
            bare = re.sub(old, new, bare)
        module, _, part = bare.rpartition(".")
        match = _path_pattern(self.layer_path).fullmatch(module)
        place: tuple[int, ...] = ()
        found: Roles | None
        if match and match["module"] in self.layer:
            module = match["module"]
            place = tuple(int(number) for number in match.groups()[:-1])
            found = self.layer[module]
        else:
            found = self.model.get(module)
        if found is None or part not in ("weight", "bias"):
            return None
        roles = (found,) if isinstance(found, str) else found
        own = self.curated.get(module, _MODULES[found])
        path = self.curated_layer_path.format(*place) if place else ""
        return Parameter(f"{path}{own}.{part}", tuple(f"{r}.{part}" for r in roles), place)

    def found(self, names: Iterable[str]) -> Iterator[tuple[str, Parameter]]:
        """Pairs of a checkpoint's name and what it stands for, without what is dropped on purpose.

        Dropped are names that are ignored and, where the model's own prefix is used, the heads
        beside it. Raises ``ValueError`` for any other unknown name, which may change the result.
        """
        names = list(names)
        prefixed = bool(self.prefix) and any(name.startswith(self.prefix) for name in names)
        for name in names:
            parameter = self.find(name)
            if parameter is not None:
                yield name, parameter
                continue
            of_head = prefixed and not name.startswith(self.prefix)
            if not of_head and not re.search(self.ignored, name.removeprefix(self.prefix)):
                raise ValueError(
                    f"the checkpoint holds `{name}`, which this architecture does not have"
                )

    def to_curated(self, name: str, has_head: bool) -> str:
        """A checkpoint's name -> this package's; an unknown one stays as it is."""
        parameter = self.find(name)
        if parameter is None:
            return name
        return curated_name(parameter, has_head)

    def describe(self, role: str, layer: int, layers_per_group: int, has_head: bool) -> str:
        """How messages name the parameter of a role: as here, and as in checkpoints."""
        module, _, part = role.rpartition(".")
        original = self._module_of(module, layer)
        if original is None:
            return role
        place: tuple[int, ...] = () if layer < 0 else (layer,)
        if place and self.layer_path.count("{}") == 2:
            place = divmod(layer, layers_per_group)
        path = self.layer_path.format(*place) if place else ""
        name = f"{path}{original}.{part}"
        name = self.from_curated(self.to_curated(name, has_head), has_head)
        return f"{self.to_curated(name, has_head)} (`{name}` in the checkpoint)"

    def _module_of(self, role: str, layer: int) -> str | None:
        # The core asks for three projections where a checkpoint may have them fused.
        table: Mapping[str, Roles] = self.model if layer < 0 else self.layer
        for wanted in (role, "qkv") if role in ("query", "key", "value") else (role,):
            for module, roles in table.items():
                if wanted == roles or (not isinstance(roles, str) and wanted in roles):
                    return module
        return None

    def from_curated(self, name: str, has_head: bool) -> str:
        """This package's name -> a checkpoint's; an unknown one stays as it is."""
        bare = name.removeprefix("decoder.") if has_head else name
        module, _, part = bare.rpartition(".")
        match = _path_pattern(self.curated_layer_path).fullmatch(module)
        if match and match["module"] in self._hf_layer:
            path = self.layer_path.format(*match.groups()[:-1])
            original = f"{path}{self._hf_layer[match['module']]}.{part}"
        elif module in self._hf_model:
            original = f"{self._hf_model[module]}.{part}"
        else:
            return name
        of_head = self.model.get(self._hf_model.get(module, "")) == "head"
        return original if of_head or not has_head else self.prefix + original

    @cached_property
    def _hf_model(self) -> dict[str, str]:
        return self._inverse(self.model)

    @cached_property
    def _hf_layer(self) -> dict[str, str]:
        return self._inverse(self.layer)

    def _inverse(self, table: Mapping[str, Any]) -> dict[str, str]:
        inverse: dict[str, str] = {}
        for (
            module,
            roles,
        ) in table.items():  # the first of several names for a role is the usual one
            inverse.setdefault(self.curated.get(module, _MODULES[roles]), module)
        return inverse


def curated_name(parameter: Parameter, has_head: bool) -> str:
    """The name in a model's state; those of a causal language model's decoder have a prefix."""
    return parameter.name if not has_head or parameter.is_head else f"decoder.{parameter.name}"


def _path_pattern(path: str) -> re.Pattern[str]:
    parts = (re.escape(part) for part in path.split("{}"))
    return re.compile(r"(\d+)".join(parts) + "(?P<module>.+)")
