"""The environment variables of the Hugging Face ecosystem, read when they are asked for."""

from __future__ import annotations

import os
from pathlib import Path


def hf_home() -> Path:
    """``HF_HOME``, else ``huggingface`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(os.environ.get("HF_HOME") or os.path.join(caches, "huggingface"))


def hub_cache_folder() -> Path:
    """``HF_HUB_CACHE``, else ``hub`` in ``HF_HOME``."""
    explicit = os.environ.get("HF_HUB_CACHE")
    return _expanded(explicit) if explicit else hf_home() / "hub"


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))
