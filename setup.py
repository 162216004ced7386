"""Builds the extension `curated_transformers._core` from csrc/.

Each folder of csrc/cpu/isa/ gets the compiler flags of its instruction set, and only it: a single
AVX-512 instruction elsewhere would crash older processors. oneDNN's headers come from the wheel
that pyproject.toml names; where there is none (other platforms) the core does without.

CURATED_TRANSFORMERS_WERROR=1 makes warnings errors, as our own checks do.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
ISA_FLAGS = {"avx2": AVX2, "avx512": AVX512}
ON_X86 = platform.machine() in ("x86_64", "AMD64")


def core_sources() -> list[str]:
    sources = []
    for path in sorted(Path("csrc").rglob("*.c")):
        isa = path.parent.name
        if ON_X86 or isa not in ISA_FLAGS:
            sources.append(path.as_posix())
    return sources


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
    flags = [
        "-std=c11",
        "-O2",
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


class BuildCore(build_ext):
    """Compiles with each folder's flags, several files at once, and only what has changed."""

    def build_extension(self, ext: Extension) -> None:
        compiler = self.compiler
        newest_header = max(path.stat().st_mtime for path in Path("csrc").rglob("*.h"))
        newest_header = max(newest_header, Path(__file__).stat().st_mtime)
        macros = [*ext.define_macros, *((undef,) for undef in ext.undef_macros)]

        def compile_one(source: str) -> str:
            target = compiler.object_filenames([source], output_dir=self.build_temp)[0]
            fresh = max(Path(source).stat().st_mtime, newest_header)
            if self.force or not os.path.exists(target) or os.path.getmtime(target) < fresh:
                isa = ISA_FLAGS.get(Path(source).parent.name, [])
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


setup(ext_modules=[core_extension()], cmdclass={"build_ext": BuildCore})
