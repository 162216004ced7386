"""Model classes by name: those of entry points, so that other packages can add architectures, and
those registered by the program itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

Class = TypeVar("Class", bound=type)


class ModelRegistry:
    """The classes registered in this process, then the entry points of one group in order, which
    are imported when they are asked for."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._registered: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Class], Class]:
        """A decorator that adds a class; it comes before entry points, and replaces one of its
        name."""

        def add(found: Class) -> Class:
            self._registered[name] = found
            return found

        return add

    def names(self) -> list[str]:
        """The names of all entries, sorted."""
        return sorted({*self._registered, *(entry.name for entry in self._entries())})

    def classes(self) -> Iterator[tuple[str, Any]]:
        """Pairs of entry name and class. One that cannot be imported is skipped with a warning, so
        that a broken package does not take the others with it."""
        yield from list(self._registered.items())
        for entry in self._entries():
            if entry.name in self._registered:
                continue
            try:
                found = entry.load()
            except Exception as error:
                warnings.warn(
                    f"Model `{entry.name}` could not be imported: {error!r}", stacklevel=4
                )
                continue
            yield entry.name, found

    def _entries(self) -> EntryPoints:
        # Takes longer to import than the whole package, which many callers never need.
        from importlib.metadata import entry_points

        return entry_points(group=self.group)


class registry:  # noqa: N801 (the documented name)
    """The registries that the Auto classes look into."""

    encoders = ModelRegistry("curated_transformers_encoders")
    decoders = ModelRegistry("curated_transformers_decoders")
    causal_lms = ModelRegistry("curated_transformers_causal_lms")
