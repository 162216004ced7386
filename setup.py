"""Builds the extension `curated_transformers._core` from csrc/, and the CUDA plugin from cuda/
where nvcc is found (cuda/cuda_build.py says where).

Each folder of csrc/cpu/isa/ gets the compiler flags of its instruction set, and only it: a single
AVX-512 instruction elsewhere would crash older processors. oneDNN's headers come from the wheel
that pyproject.toml names; where there is none (other platforms) the core does without.

CURATED_TRANSFORMERS_CUDA=0 does without the plugin; =1 makes it an error when it cannot be built,
which otherwise is a warning.

CURATED_TRANSFORMERS_WERROR=1 makes warnings errors, as our own checks do.

CFLAGS may ask for another level than -O2, and with -g for debugging, which Python's own flags often
do unasked: the file is twenty times as large then.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

sys.path.insert(0, str(Path(__file__).resolve().parent / "cuda"))
import cuda_build

AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISA_FLAGS = {"x86_64": {"avx2": AVX2, "avx512": AVX512}, "aarch64": {"neon": []}}
PLUGIN = "curated_transformers._cuda"
OWN_ISA_FLAGS = ISA_FLAGS.get(platform.machine(), {})


def core_sources() -> list[str]:
    others = {isa for flags in ISA_FLAGS.values() for isa in flags} - set(OWN_ISA_FLAGS)
    return [
        path.as_posix()
        for path in sorted(Path("csrc").rglob("*.c"))
        if path.parent.name not in others
    ]


def onednn_prefix() -> Path | None:
    """The folder whose include/ and lib/ hold oneDNN, or None where its wheel is not installed."""
    try:
        files = importlib.metadata.files("onednn-devel-cpu-gomp") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "dnnl.h":
            return Path(str(file.locate())).resolve().parent.parent
    return None


def core_extension() -> Extension:
    asked = os.environ.get("CFLAGS", "").split()
    flags = [
        "-std=c11",
        *(flag for flag in ("-O2", "-g0") if not any(own.startswith(flag[:2]) for own in asked)),
        "-fopenmp",
        "-fvisibility=hidden",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
    ]
    if os.environ.get("CURATED_TRANSFORMERS_WERROR") == "1":
        flags.append("-Werror")
    extension = Extension(
        "curated_transformers._core",
        core_sources(),
        include_dirs=["csrc", numpy.get_include()],
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=flags,
        extra_link_args=["-fopenmp"],
        libraries=["m", "dl"] if sys.platform == "linux" else ["m"],
    )
    prefix = onednn_prefix()
    if prefix is not None:
        extension.define_macros.append(("CT_WITH_ONEDNN", None))
        extension.include_dirs.append(str(prefix / "include"))
        extension.library_dirs.append(str(prefix / "lib"))
        extension.libraries.append("dnnl")
        # The wheel puts the library into PREFIX/lib: three folders above an installed package, and
        # in the interpreter's prefix for one that is used in place.
        extension.runtime_library_dirs += ["$ORIGIN/../../..", str(Path(sys.prefix) / "lib")]
    return extension


def plugin_extension() -> Extension:
    files = [path.relative_to(cuda_build.ROOT).as_posix() for path in cuda_build.sources()]
    return Extension(PLUGIN, files, optional=True)


def wants_plugin() -> bool:
    return sys.platform == "linux" and os.environ.get("CURATED_TRANSFORMERS_CUDA") != "0"


class BuildCore(build_ext):
    """Compiles with each folder's flags, several files at once, and only what has changed."""

    def get_ext_filename(self, fullname: str) -> str:
        # No Python version is in the plugin's name, as it knows nothing of Python.
        if fullname.endswith("_cuda"):
            return os.path.join(*fullname.split(".")) + ".so"
        return super().get_ext_filename(fullname)

    def run(self) -> None:
        if not wants_plugin():  # what an earlier build left would become part of the package
            name = self.get_ext_filename(PLUGIN)
            for folder in (self.build_lib, *(["."] if self.inplace else [])):
                Path(folder, name).unlink(missing_ok=True)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        if ext.name == PLUGIN:
            self.build_plugin(Path(self.get_ext_fullpath(ext.name)))
        else:
            self.build_core(ext)

    def build_plugin(self, target: Path) -> None:
        """Where this fails, what an earlier build left goes, too."""
        try:
            toolkit = cuda_build.find_toolkit()
            folder = Path(self.build_temp).resolve() / "cuda"
            if self.force:
                shutil.rmtree(folder, ignore_errors=True)
            cuda_build.link(toolkit, cuda_build.compile_all(toolkit, folder), target)
        except cuda_build.BuildError as error:
            target.unlink(missing_ok=True)
            Path(self.get_ext_filename(PLUGIN)).unlink(missing_ok=True)
            if os.environ.get("CURATED_TRANSFORMERS_CUDA") == "1":
                raise SystemExit(f"the CUDA plugin cannot be built: {error}") from None
            self.announce(
                f"without the CUDA plugin: {error}",
                level=logging.INFO if isinstance(error, cuda_build.NoToolkit) else logging.WARNING,
            )

    def build_core(self, ext: Extension) -> None:
        compiler = self.compiler
        newest_header = max(path.stat().st_mtime for path in Path("csrc").rglob("*.h"))
        newest_header = max(newest_header, Path(__file__).stat().st_mtime)
        macros = [*ext.define_macros, *((undef,) for undef in ext.undef_macros)]

        def compile_one(source: str) -> str:
            target = compiler.object_filenames([source], output_dir=self.build_temp)[0]
            fresh = max(Path(source).stat().st_mtime, newest_header)
            if self.force or not os.path.exists(target) or os.path.getmtime(target) < fresh:
                isa = OWN_ISA_FLAGS.get(Path(source).parent.name, [])
                compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    macros=macros,
                    include_dirs=ext.include_dirs,
                    extra_postargs=[*ext.extra_compile_args, *isa],
                )
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, ext.sources))
        compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            libraries=self.get_libraries(ext),
            library_dirs=ext.library_dirs,
            runtime_library_dirs=ext.runtime_library_dirs,
            extra_postargs=ext.extra_link_args,
            build_temp=self.build_temp,
        )


class SourceDistribution(sdist):
    """With the headers, and the sources that this machine does not compile."""

    def make_distribution(self) -> None:
        for folder in ("csrc", "cuda"):
            self.filelist.extend(
                path.as_posix()
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file() and "__pycache__" not in path.parts
            )
        self.filelist.remove_duplicates()
        super().make_distribution()


setup(
    ext_modules=[core_extension(), *([plugin_extension()] if wants_plugin() else [])],
    cmdclass={"build_ext": BuildCore, "sdist": SourceDistribution},
)
