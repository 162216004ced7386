"""Text generation with causal language models."""

from .async_generator import AsyncTextGenerator
from .auto_generator import AutoGenerator
from .config import GeneratorConfig, GreedyGeneratorConfig, SampleGeneratorConfig
from .default_generator import DefaultGenerator
from .dolly_v2 import DollyV2Generator
from .falcon import FalconGenerator
from .generation import Generation
from .generator import Generator
from .generator_wrapper import GeneratorWrapper
from .hf_hub import FromHF
from .llama import LlamaGenerator
from .logits import (
    CompoundLogitsTransform,
    LogitsTransform,
    MinPTransform,
    TemperatureTransform,
    TopKTransform,
    TopPTransform,
    VocabMaskTransform,
)
from .mpt import MPTGenerator
from .stop_conditions import (
    CompoundStopCondition,
    EndOfSequenceCondition,
    MaxGeneratedPiecesCondition,
    PredicateCondition,
    StopCondition,
)
from .string_generator import StringGenerator

__all__ = [
    "AsyncTextGenerator",
    "AutoGenerator",
    "CompoundLogitsTransform",
    "CompoundStopCondition",
    "DefaultGenerator",
    "DollyV2Generator",
    "EndOfSequenceCondition",
    "FalconGenerator",
    "FromHF",
    "Generation",
    "Generator",
    "GeneratorConfig",
    "GeneratorWrapper",
    "GreedyGeneratorConfig",
    "LlamaGenerator",
    "LogitsTransform",
    "MPTGenerator",
    "MaxGeneratedPiecesCondition",
    "MinPTransform",
    "PredicateCondition",
    "SampleGeneratorConfig",
    "StopCondition",
    "StringGenerator",
    "TemperatureTransform",
    "TopKTransform",
    "TopPTransform",
    "VocabMaskTransform",
]
