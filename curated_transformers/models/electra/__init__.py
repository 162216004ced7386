"""ELECTRA (Clark et al. 2020)."""

from .encoder import ELECTRAEncoder

__all__ = ["ELECTRAEncoder"]
