"""MPT models."""

from __future__ import annotations

from .default_generator import DefaultGenerator


class MPTGenerator(DefaultGenerator):
    """Generates with MPT models, which take prompts as they are."""
