"""Weights in fewer bits."""

from .bnb import BitsAndBytesConfig, Dtype4Bit
from .quantizable import Quantizable, prepare_module_for_quantization

__all__ = ["BitsAndBytesConfig", "Dtype4Bit", "Quantizable", "prepare_module_for_quantization"]
