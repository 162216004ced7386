"""Reading the parameters of a checkpoint."""

from ...checkpoint import load_checkpoint

__all__ = ["load_checkpoint"]
