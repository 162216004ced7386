"""Reading checkpoints: files become mappings from parameter name to tensor, without a copy."""

from .gguf import GGUFFile, is_gguf
from .index import ModelCheckpointType, find_checkpoints, load_checkpoint
from .safetensors import SafeTensorsFile
from .torch_file import CheckpointUnpicklingError, TorchFile

__all__ = [
    "CheckpointUnpicklingError",
    "GGUFFile",
    "ModelCheckpointType",
    "SafeTensorsFile",
    "TorchFile",
    "find_checkpoints",
    "is_gguf",
    "load_checkpoint",
]
