"""What every generator of text offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from .config import GeneratorConfig


class GeneratorWrapper(ABC):
    """Prompts in, generated texts out."""

    def __call__(
        self, prompts: Sequence[str], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """See :meth:`generate`."""
        return self.generate(prompts, config, progress=progress)

    @abstractmethod
    def generate(
        self, prompts: Sequence[str], config: GeneratorConfig, *, progress: bool = False
    ) -> list[str]:
        """The generated texts, in the prompts' order; ``progress`` shows a bar of finished
        prompts."""
