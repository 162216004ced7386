"""Kinds of checkpoints."""

from ...checkpoint import ModelCheckpointType

__all__ = ["ModelCheckpointType"]
