"""Reading checkpoints: files become mappings from parameter name to tensor, without a copy."""

from .gguf import GGUFFile
from .index import ModelCheckpointType, find_checkpoints, load_checkpoint
from .safetensors import SafeTensorsFile

__all__ = [
    "GGUFFile",
    "ModelCheckpointType",
    "SafeTensorsFile",
    "find_checkpoints",
    "load_checkpoint",
]
