"""What is published can be built."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
FOLDERS = ("csrc", "cuda", "curated_transformers")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def test_the_source_distribution_has_all_sources(tmp_path):
    pytest.importorskip("setuptools")
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=ignored)
    for file in FILES:
        shutil.copy(PROJECT / file, tmp_path / file)
    sources = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    subprocess.run([sys.executable, "setup.py", "-q", "sdist"], cwd=tmp_path, check=True)
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert sources <= packed, sorted(sources - packed)
    assert "csrc/cpu/isa/kernels.h" in sources
