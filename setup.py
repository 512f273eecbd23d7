"""The optional native kernels; all else is in pyproject.toml.

The C sources are compiled once for each floating type and each level of the instruction set, and linked into one shared
library, which pushforward/kernels/native.py opens with ctypes: it contains no Python code and serves every version of
Python. Without GCC or Clang the build goes on without it, and plain PyTorch operations are used.

PUSHFORWARD_BUILD_KERNELS=0 leaves the kernels out and builds a pure-Python wheel.
"""

from __future__ import annotations

import itertools
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

FOLDER = "src/pushforward/kernels"
LEVELS = {
    "x86-64-v2": ["-march=x86-64-v2"],
    "x86-64-v3": ["-march=x86-64-v3"],
    "x86-64-v4": ["-march=x86-64-v4", "-mtune=icelake-server", "-mprefer-vector-width=512"],
}
"""Compiler options of the levels of x86-64. Other processors have one level. With the compiler's default tuning the
code of x86-64-v4 is up to 10 % slower."""
TYPES = {"float32": [("REAL", "float"), ("SINGLE", "1")], "float64": [("REAL", "double"), ("SINGLE", "0")]}
OPTIONS = ["-O3", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fno-wrapv", "-Wno-psabi"]
OPENMP = ["-fopenmp"]


class BuildKernels(build_ext):
    """Compile each source for all types and levels."""

    def get_ext_filename(self, fullname: str) -> str:
        """Without the version of Python in the name."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Build with OpenMP, or with one thread where the compiler has none."""
        if self.compiler.compiler_type != "unix":
            raise CompileError("the native kernels need GCC or Clang")
        try:
            self.build_library(ext, OPENMP)
        except (CompileError, LinkError):
            self.build_library(ext, [])

    def build_library(self, ext: Extension, options: list[str]) -> None:
        """Build the shared library."""
        probe, *sources = ext.sources
        objects = self.compile(probe, options)
        levels = LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {"baseline": []}
        levels = {level: flags for level, flags in levels.items() if self.accepts(probe, flags)}
        if not levels:
            raise CompileError(
                "the compiler does not know the levels x86-64-v2 to x86-64-v4: use GCC 11 or Clang 12, or newer"
            )
        variants = itertools.product(sources, TYPES.items(), levels.items())
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(
                    self.compile, source, [*options, *flags], variant=f"{name}_{level.replace('-', '_')}", macros=macros
                )
                for source, (name, macros), (level, flags) in variants
            ]
            for job in jobs:
                objects += job.result()
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), libraries=["m"], extra_postargs=options
        )

    def accepts(self, source: str, flags: list[str]) -> bool:
        """Whether the compiler knows some options."""
        try:
            self.compile(source, flags, variant="probe")
        except CompileError:
            return False
        return True

    def compile(
        self, source: str, options: list[str], variant: str = "", macros: list[tuple[str, str]] | None = None
    ) -> list[str]:
        """One object file, whose exported functions end in the variant's name."""
        folder = Path(self.build_temp, variant)
        folder.mkdir(parents=True, exist_ok=True)
        return self.compiler.compile(
            [source], str(folder), [*(macros or []), ("VARIANT", variant)], extra_postargs=[*OPTIONS, *options]
        )


class Wheel(bdist_wheel):
    """A wheel with kernels is for one platform and any version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag."""
        tag = super().get_tag()
        return tag if self.root_is_pure else ("py3", "none", tag[2])


# levels.c comes first: it is the same for all types and levels.
SOURCES = [f"{FOLDER}/{name}.c" for name in ("levels", "spline", "conv", "made", "program", "neighbors")]
KERNELS = Extension(
    "pushforward.kernels.libkernels",
    SOURCES,
    depends=[str(path) for path in sorted(Path(FOLDER).glob("*.h"))],
    optional=True,
)

setup(
    ext_modules=[] if os.environ.get("PUSHFORWARD_BUILD_KERNELS") == "0" else [KERNELS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)
