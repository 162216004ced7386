"""Devices: ``Device("cpu")``, ``Device("cuda", 1)``, or from a string or a ``torch.device``."""

from ._core import Device

__all__ = ["Device"]
