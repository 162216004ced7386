"""Transformer inference from a C core: encoders, decoders, causal language models, generation."""

from importlib.metadata import PackageNotFoundError, version

from ._core import Device, Tensor, get_num_threads, isa, set_num_threads
from .registry import registry

try:
    __version__ = version("curated-transformers")
except PackageNotFoundError:
    __version__ = "unknown"

__all__ = [
    "Device",
    "Tensor",
    "__version__",
    "get_num_threads",
    "isa",
    "registry",
    "set_num_threads",
]
