"""Model classes by entry point, so that other packages can add architectures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


class ModelRegistry:
    """The entry points of one group, in order; classes are imported when they are asked for."""

    def __init__(self, group: str) -> None:
        self.group = group

    def names(self) -> list[str]:
        """The names of all entries, sorted."""
        return sorted({entry.name for entry in self._entries()})

    def classes(self) -> Iterator[tuple[str, Any]]:
        """Pairs of entry name and class."""
        for entry in self._entries():
            yield entry.name, entry.load()

    def _entries(self) -> EntryPoints:
        # Takes longer to import than the whole package, which many callers never need.
        from importlib.metadata import entry_points

        return entry_points(group=self.group)


class registry:  # noqa: N801 (the documented name)
    """The registries that the Auto classes look into."""

    encoders = ModelRegistry("curated_transformers_encoders")
    decoders = ModelRegistry("curated_transformers_decoders")
    causal_lms = ModelRegistry("curated_transformers_causal_lms")
