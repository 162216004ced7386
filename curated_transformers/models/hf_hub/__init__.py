"""Loading models from Hugging Face repositories, and their configurations."""

from .mixin import FromHF

__all__ = ["FromHF"]
