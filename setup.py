"""Compiles the native ops into the package; everything else about the package is in pyproject.toml."""

import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = sorted(map(str, Path("custom_ops/cc").rglob("*.cc")))
HEADERS = sorted(map(str, Path("custom_ops").rglob("*.h")))

# The flags of every build; no -march=native, since the library may be copied to another machine.
# -ffp-contract=off: the edges of RoI bins are defined by separately rounded float32 operations.
COMPILER_FLAGS = ["-O3", "-Wall", "-Wextra", "-DNDEBUG", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden"]


def tensorflow_minor_version():
    """Such as "2.21"; "unknown" where TensorFlow is not installed (the library is not compiled then)."""
    try:
        return ".".join(importlib.metadata.version("tensorflow").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class BuildNativeOps(build_ext):
    """Calls the C++ compiler with TensorFlow's flags; a failure leaves the package without the library."""

    def get_ext_filename(self, fullname):
        # The library does not use Python's ABI but TensorFlow's, which is why its name tells the latter's version:
        # native.py reads it there before it loads anything.
        return f"{fullname.replace('.', os.sep)}.tf{tensorflow_minor_version()}.so"

    def build_extension(self, ext):
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        # Left by an earlier build in this folder, perhaps for another TensorFlow; a wheel takes what lies here.
        for library in output.parent.glob("_native_ops.*.so"):
            library.unlink()
        try:
            compile_library(ext.sources, output)
        except CompileError as error:
            print_missing(error)
            raise


def compile_library(sources, output):
    """Compiles and links `sources` to the library `output`; raises CompileError with the reason."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise CompileError(f"TensorFlow, whose headers it needs, cannot be imported: {error}") from error
    command = [
        *shlex.split(os.environ.get("CXX", "g++")),
        *COMPILER_FLAGS,
        # As system headers TensorFlow's give no warnings.
        *(flag.replace("-I", "-isystem", 1) for flag in tf.sysconfig.get_compile_flags()),
        *shlex.split(os.environ.get("CXXFLAGS", "")),
        *sources,
        *("-o", str(output)),
        *tf.sysconfig.get_link_flags(),
    ]
    print(shlex.join(command), flush=True)
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompileError(f"the C++ compiler {command[0]!r} failed: {error}") from error


def print_missing(error):
    print(
        f"\nWARNING: tf-fast-rcnn is installed WITHOUT its native RoI pooling op: {error}\n"
        "         It works all the same, with the slower portable implementation (stock TensorFlow ops).\n"
        "         To have the op, install a C++17 compiler (or name one in CXX) and install the package again.\n",
        file=sys.stderr,
        flush=True,
    )


class PlatformWheel(bdist_wheel):
    """Tags the wheel by what is in it: py3-none-PLATFORM with the library, py3-none-any without.

    The library uses no part of Python's ABI, so one wheel serves every Python version.
    """

    def run(self):
        self.run_command("build")
        if not list(Path(self.get_finalized_command("build").build_lib).rglob("_native_ops.*.so")):
            self.root_is_pure = True
            self.distribution.ext_modules = []
        super().run()

    def get_tag(self):
        return ("py3", "none", "any" if self.root_is_pure else super().get_tag()[2])


native_ops = Extension("tf_fast_rcnn._native_ops", SOURCES, depends=HEADERS, optional=True)
setup(
    ext_modules=[native_ops],
    cmdclass={"build_ext": BuildNativeOps, "bdist_wheel": PlatformWheel},
)
