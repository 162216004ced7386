"""What appears in model signatures and outputs: activations, masks, caches."""

from .activations import Activation
from .attention import AttentionMask
from .cache import KeyValueCache

__all__ = ["Activation", "AttentionMask", "KeyValueCache"]
