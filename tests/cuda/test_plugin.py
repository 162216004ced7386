"""Loading the plugin, and what is said when that fails: each in a process of its own, as a plugin
that was loaded stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRY = """
#include "ops/plugin.h"
static const ct_ops ops = {{.abi = {ops_abi}, .size = sizeof ops, .name = "cuda"}};
static void connect(const ct_services *services) {{ (void)services; }}
static const ct_plugin plugin = {{{abi}, {size}, sizeof(ct_services), &ops, connect}};
const ct_plugin *ct_plugin_entry(void) {{ return &plugin; }}
"""
GOOD = {"ops_abi": "CT_OPS_ABI", "abi": "CT_PLUGIN_ABI", "size": "sizeof(ct_plugin)"}
TRY = """
from curated_transformers import Device, Tensor
assert not Device("cuda").is_available()
assert Device("cpu").is_available()
try:
    Tensor([1.0]).to(device="cuda")
except NotImplementedError as error:
    print(error)
"""


def run(code, plugin):
    environment = {**os.environ, "CURATED_TRANSFORMERS_CUDA_PLUGIN": str(plugin)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compiled(compiler, folder, source):
    file, target = folder / "plugin.c", folder / "plugin.so"
    file.write_text(source)
    include = f"-I{ROOT / 'csrc'}"
    subprocess.run(
        [compiler, "-x", "c", "-std=c11", "-shared", "-fPIC", include, file, "-o", target],
        check=True,
    )
    return target


def test_devices_of_a_plugin_are_available_as_many_as_there_are(host_plugin):
    code = """
from curated_transformers import Device
print([Device("cuda", i).is_available() for i in range(4)], Device("cpu").is_available())
"""
    assert run(code, host_plugin) == "[True, True, False, False] True"


def test_a_device_that_does_not_exist_is_named_with_how_many_do(host_plugin):
    code = """
from curated_transformers import Tensor
try:
    Tensor([1.0]).to(device="cuda:2")
except ValueError as error:
    print(error)
"""
    assert run(code, host_plugin) == 'device "cuda:2" does not exist: this machine has 2 GPUs'


def test_the_plugin_is_not_loaded_before_it_is_needed(host_plugin):
    code = """
from curated_transformers import Device
loaded = lambda: "_cuda" in open("/proc/self/maps").read()
assert not loaded()
Device("cuda").is_available()
assert loaded()
"""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")
    run(code, host_plugin)


def test_many_threads_load_it_at_once(host_plugin):
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from curated_transformers import Device
barrier = Barrier(8)
def ask(_):
    barrier.wait()
    return Device("cuda").is_available()
with ThreadPoolExecutor(8) as pool:
    print(all(pool.map(ask, range(8))))
"""
    assert run(code, host_plugin) == "True"


def test_a_missing_file_is_named(tmp_path):
    message = run(TRY, tmp_path / "nothing.so")
    assert message.startswith('device "cuda" is not available: the CUDA plugin cannot be loaded:')
    assert "nothing.so" in message
    assert message.endswith('use device="cpu"')


def test_a_file_that_was_missing_may_be_there_later(host_plugin, tmp_path):
    code = f"""
import os
from curated_transformers import Device
assert not Device("cuda").is_available()
os.symlink({str(host_plugin)!r}, os.environ["CURATED_TRANSFORMERS_CUDA_PLUGIN"])
print(Device("cuda").is_available())
"""
    assert run(code, tmp_path / "late.so") == "True"


def test_a_library_without_the_entry_is_no_plugin(compiler, tmp_path):
    plugin = compiled(compiler, tmp_path, "int other;\n")
    assert f"{plugin} is no plugin of this package" in run(TRY, plugin)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"abi": "CT_PLUGIN_ABI + 1"}, "is of plugin ABI "),
        ({"size": "8"}, "is of plugin ABI "),
        ({"ops_abi": "CT_OPS_ABI + 1"}, 'the operations of "cuda" are of ABI '),
    ],
)
def test_a_plugin_of_another_version_is_refused(compiler, tmp_path, changed, said):
    plugin = compiled(compiler, tmp_path, ENTRY.format(**{**GOOD, **changed}))
    message = run(TRY, plugin)
    assert said in message
    assert message.endswith('build both from one version; use device="cpu"')


def test_a_build_without_a_plugin_says_where_one_comes_from(tmp_path):
    """The core alone, as an installation without nvcc has it."""
    import curated_transformers

    package = Path(curated_transformers.__file__).parent
    (tmp_path / "curated_transformers").mkdir()
    for path in package.iterdir():
        if path.name not in ("_cuda.so", "__pycache__"):
            (tmp_path / "curated_transformers" / path.name).symlink_to(path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{TRY}"
    assert "this build has no CUDA support: install from source where nvcc" in run(code, "")


def test_the_built_plugin_needs_no_driver_to_be_loaded():
    """Whatever this machine has: either it works, or it says what is missing."""
    code = """
from curated_transformers import Device, Tensor
try:
    Tensor([1.0]).to(device="cuda")
except NotImplementedError as error:
    print(Device("cuda").is_available(), error)
"""
    import curated_transformers

    if not (Path(curated_transformers.__file__).parent / "_cuda.so").exists():
        pytest.skip("the package was built without nvcc")
    message = run(code, "")
    causes = ("no NVIDIA driver", "no NVIDIA GPU", "driver supports", "no kernels", "not moved")
    assert any(cause in message for cause in causes), message
    assert "cannot be loaded" not in message
