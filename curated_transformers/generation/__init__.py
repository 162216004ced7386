"""Text generation with causal language models."""

from .auto_generator import AutoGenerator
from .config import GeneratorConfig, GreedyGeneratorConfig, SampleGeneratorConfig
from .default_generator import DefaultGenerator
from .generator import Generator
from .string_generator import StringGenerator

__all__ = [
    "AutoGenerator",
    "DefaultGenerator",
    "Generator",
    "GeneratorConfig",
    "GreedyGeneratorConfig",
    "SampleGeneratorConfig",
    "StringGenerator",
]
