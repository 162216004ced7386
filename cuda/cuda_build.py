"""Compiles cuda/ to the plugin, for setup.py and .ci/cuda-budget: each file with nvcc to an object
for all GPUs, when it or what it includes has changed, and beside it the compiler's report.

CUDA_HOME names a toolkit; else nvcc is looked for in PATH and in /usr/local/cuda.
CURATED_TRANSFORMERS_CUDA_ARCHITECTURES="90" (or "80 90") compiles for fewer GPUs, and sooner.
CURATED_TRANSFORMERS_WERROR=1 makes warnings errors.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = (80, 86, 89, 90)
OLDEST_NVCC = (12, 0)


class Toolkit(NamedTuple):
    nvcc: str
    version: tuple[int, int]
    architectures: tuple[int, ...]


class BuildError(Exception):
    """What the compiler said, or what is wrong with the settings."""


class NoToolkit(BuildError):
    """There is no nvcc, as on most machines."""


def sources() -> list[Path]:
    kinds = ("*.cu", "*.cpp", "gpu/*.cu", "gpu/*.cpp")
    return sorted(path for kind in kinds for path in (ROOT / "cuda").glob(kind))


def find_toolkit() -> Toolkit:
    """A BuildError where there is no nvcc that can compile this."""
    home = os.environ.get("CUDA_HOME")
    places = [f"{home}/bin/nvcc"] if home else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    nvcc = next((found for found in map(shutil.which, places) if found), None)
    if nvcc is None:
        raise NoToolkit(f"nvcc was not found ({', '.join(places)})")
    release = re.search(r"release (\d+)\.(\d+)", output_of([nvcc, "--version"]))
    version = (int(release[1]), int(release[2])) if release else (0, 0)
    if version < OLDEST_NVCC:
        raise BuildError(f"{nvcc} is of CUDA {version[0]}.{version[1]}; 12.0 or newer is needed")
    known = re.findall(r"compute_(\d+)", output_of([nvcc, "--list-gpu-arch"]))
    return Toolkit(nvcc, version, wanted_architectures({int(number) for number in known}))


def wanted_architectures(known: set[int]) -> tuple[int, ...]:
    text = os.environ.get("CURATED_TRANSFORMERS_CUDA_ARCHITECTURES", "")
    asked = re.split(r"[\s,;]+", text.strip()) if text.strip() else []
    if any(not number.isdecimal() for number in asked):
        raise BuildError(
            f'CURATED_TRANSFORMERS_CUDA_ARCHITECTURES is "{text}"; it should be like "80 90"'
        )
    wanted = sorted({int(number) for number in asked}) or ARCHITECTURES
    usable = tuple(number for number in wanted if number in known)
    if not usable or (asked and len(usable) < len(wanted)):
        raise BuildError(
            f"this nvcc knows none or not all of the architectures {', '.join(map(str, wanted))}"
        )
    return usable


def output_of(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    except OSError as error:
        raise BuildError(str(error)) from None
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def compile_all(toolkit: Toolkit, folder: Path) -> list[Path]:
    """The objects, in `folder`; X.cu.report beside X.cu.o holds registers, stack and spills."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda source: compile_one(toolkit, source, folder), sources()))


def compile_one(toolkit: Toolkit, source: Path, folder: Path) -> Path:
    target = folder / f"{source.name}.o"
    parts = folder / f"{source.name}.d"
    command = [*compiler(toolkit), "-MMD", "-MF", str(parts), "-c", str(source), "-o", str(target)]
    stamp = target.with_suffix(".command")
    text = shlex.join(command)
    if stamp.exists() and stamp.read_text() == text and is_fresh(target, parts):
        return target
    stamp.unlink(missing_ok=True)
    report = output_of(command)
    target.with_suffix(".report").write_text(report)
    for line in report.splitlines():
        if "warning" in line and not line.startswith("ptxas info"):
            print(line, file=sys.stderr)
    stamp.write_text(text)
    return target


def compiler(toolkit: Toolkit) -> list[str]:
    """For the newest GPU there is PTX as well, which drivers compile for those that came after."""
    newest = toolkit.architectures[-1]
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in toolkit.architectures[:-1]]
    targets.append(f"-gencode=arch=compute_{newest},code=[sm_{newest},compute_{newest}]")
    werror = os.environ.get("CURATED_TRANSFORMERS_WERROR") == "1"
    return [
        toolkit.nvcc,
        "-std=c++20",
        "-O2",
        f"--threads={min(2, len(targets))}",
        "-I" + str(ROOT / "cuda"),
        "-I" + str(ROOT / "csrc"),
        "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
        "-Xptxas=-v",
        *targets,
        *(["--Werror=all-warnings"] if werror else []),
    ]


def is_fresh(target: Path, parts: Path) -> bool:
    """Whether the object is newer than every file that `parts`, nvcc's list, names."""
    if not (target.exists() and parts.exists()):
        return False
    names = re.split(r"\s+", parts.read_text().partition(" : ")[2].replace("\\\n", " ").strip())
    made = target.stat().st_mtime_ns
    return all(os.path.exists(name) and os.stat(name).st_mtime_ns <= made for name in names)


def cublas_folders(target: Path) -> list[str]:
    """Where the plugin looks for cuBLASLt before the loader does: the folders of the wheels
    nvidia-cublas and nvidia-cublas-cu12 beside an installed package, and beside the packages of
    this interpreter where the plugin is built to be used in place."""
    sites = ["$ORIGIN/.."]
    if target.parent.resolve() == ROOT / "curated_transformers":
        sites.append(sysconfig.get_path("purelib"))
    return [f"{site}/nvidia/{wheel}/lib" for site in sites for wheel in ("cu13", "cublas")]


def link(toolkit: Toolkit, objects: list[Path], target: Path) -> None:
    """Only the entry is to be seen from outside: not even the CUDA runtime, of which another
    library of the process may have a copy of its own."""
    if target.exists() and all(
        one.stat().st_mtime_ns <= target.stat().st_mtime_ns for one in objects
    ):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [
        toolkit.nvcc,
        "-shared",
        "-cudart=static",
        "-Xlinker=--exclude-libs,ALL",
        "-Xlinker=-z,defs",
        *(f"-Xlinker=--enable-new-dtags,-rpath,{folder}" for folder in cublas_folders(target)),
        "-Xcompiler=-static-libgcc,-static-libstdc++",
        *map(str, objects),
    ]
    unfinished = target.with_name(target.name + ".new")
    output_of([*command, "-o", str(unfinished)])
    unfinished.replace(target)
