"""What an import of the package brings with it, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "curated_tokenizers",
    "regex",
    "jinja2",
    "tqdm",
    "asyncio",
    "huggingface_hub",
)


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "curated_transformers",
        "curated_transformers.layers",
        "curated_transformers.models",
        "curated_transformers.generation",
        "curated_transformers.tokenizers",
        "curated_transformers.tokenizers.legacy",
        "curated_transformers.repository",
    ],
)
def test_heavy_packages_are_imported_when_they_are_needed(module):
    code = f"import {module}, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    assert run(code).split() == []


def test_the_environment_is_left_as_it_was():
    run(
        "import os; before = dict(os.environ)\n"
        "import curated_transformers\n"
        "assert dict(os.environ) == before"
    )


def test_the_version_is_the_installed_one():
    import importlib.metadata

    import curated_transformers

    assert curated_transformers.__version__ == importlib.metadata.version("curated-transformers")
