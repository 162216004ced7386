"""Transformer inference from a C core: encoders, decoders, causal language models, generation."""

import os

# OpenMP's default is to spin for milliseconds at each barrier, which is ruinous when another
# program wants the cores. It reads this once, when the core loads it; a user's own setting wins.
_spins = "GOMP_SPINCOUNT" not in os.environ and "OMP_WAIT_POLICY" not in os.environ
if _spins:
    os.environ["GOMP_SPINCOUNT"] = "3000"

from ._core import Device, Tensor, get_num_threads, isa, set_num_threads  # noqa: E402
from .registry import registry  # noqa: E402

if _spins:
    del os.environ["GOMP_SPINCOUNT"]


def __getattr__(name: str) -> str:
    # The version is read when it is asked for: importlib.metadata takes longer to import than all
    # the rest.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("curated-transformers")
    except PackageNotFoundError:
        found = "unknown"
    globals()["__version__"] = found
    return found


__all__ = [
    "Device",
    "Tensor",
    "__version__",
    "get_num_threads",
    "isa",
    "registry",
    "set_num_threads",
]
