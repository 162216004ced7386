"""Weights in fewer bits."""

from .quantizable import Quantizable, prepare_module_for_quantization

__all__ = ["Quantizable", "prepare_module_for_quantization"]
