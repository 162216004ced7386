"""Reading checkpoints: files become mappings from parameter name to tensor, mapped without a copy."""

from .gguf import GGUFFile
from .index import load_checkpoint
from .safetensors import SafeTensorsFile

__all__ = ["GGUFFile", "SafeTensorsFile", "load_checkpoint"]
