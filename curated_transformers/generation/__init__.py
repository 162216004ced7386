"""Text generation with causal language models."""

from .async_generator import AsyncTextGenerator
from .auto_generator import AutoGenerator
from .config import GeneratorConfig, GreedyGeneratorConfig, SampleGeneratorConfig
from .default_generator import DefaultGenerator
from .dolly_v2 import DollyV2Generator
from .falcon import FalconGenerator
from .generator import Generator
from .generator_wrapper import GeneratorWrapper
from .hf_hub import FromHF
from .llama import LlamaGenerator
from .mpt import MPTGenerator
from .string_generator import StringGenerator

__all__ = [
    "AsyncTextGenerator",
    "AutoGenerator",
    "DefaultGenerator",
    "DollyV2Generator",
    "FalconGenerator",
    "FromHF",
    "Generator",
    "GeneratorConfig",
    "GeneratorWrapper",
    "GreedyGeneratorConfig",
    "LlamaGenerator",
    "MPTGenerator",
    "SampleGeneratorConfig",
    "StringGenerator",
]
