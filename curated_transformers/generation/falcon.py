"""Falcon models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .default_generator import DefaultGenerator


class FalconGenerator(DefaultGenerator):
    """Generates with Falcon models, which expect a newline behind a prompt."""

    def preprocess_prompts(self, prompts: Sequence[str]) -> list[Any]:
        return super().preprocess_prompts([f"{prompt.strip()}\n" for prompt in prompts])
