"""Helpers beside models."""

from .nvtx import use_nvtx_ranges_for_forward_pass

__all__ = ["use_nvtx_ranges_for_forward_pass"]
