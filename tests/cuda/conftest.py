"""The CUDA plugin without a GPU: its kernels compiled for the host, where threads are fibers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "c++"))
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


@pytest.fixture(scope="session")
def host_plugin(compiler) -> Path:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    command = [make, "-s", "cuda-plugin", f"CXX={compiler}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "cuda-host" / "_cuda_host.so"
