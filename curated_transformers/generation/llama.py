"""Llama models."""

from __future__ import annotations

from .default_generator import DefaultGenerator


class LlamaGenerator(DefaultGenerator):
    """Generates with Llama models, which take prompts as they are."""
