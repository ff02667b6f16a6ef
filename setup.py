"""Compiles the native ops into the package; everything else about the package is in pyproject.toml."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

CUDA_OP = "custom_ops/cc/kernels/roi_pool/cuda/op_kernels.cc"
CUDA_KERNELS = sorted(map(str, Path("custom_ops/cc").rglob("*.cu")))
# Selective search without TensorFlow, which the worker processes of `prepare` do not import; the op has it too.
SEARCH_SOURCES = sorted(map(str, Path("custom_ops/cc/selective_search").glob("*.cc")))
SEARCH_INTERFACE = "custom_ops/cc/selective_search/c_api.cc"
SOURCES = sorted(set(map(str, Path("custom_ops/cc").rglob("*.cc"))) - {CUDA_OP, SEARCH_INTERFACE})
HEADERS = sorted(str(path) for pattern in ("*.h", "*.cuh") for path in Path("custom_ops/cc").rglob(pattern))

# The flags of every build; no -march=native, since the library may be copied to another machine.
# -ffp-contract=off: the edges of RoI bins are defined by separately rounded float32 operations.
# -fno-math-errno: a square root that may set errno is not vectorised.
COMPILER_FLAGS = ["-O3", "-Wall", "-Wextra", "-DNDEBUG", "-fPIC", "-shared", "-fvisibility=hidden"]
COMPILER_FLAGS += ["-ffp-contract=off", "-fno-math-errno"]

# Compute capabilities: those of TensorFlow's wheels from 7.0 on, of which nvcc 13 drops the oldest. Machine code also
# runs on later GPUs of the same major version; for still later ones the driver compiles the PTX of the last.
CUDA_ARCHITECTURES = (70, 75, 80, 90)
CUDA_TOOLKITS = Path("/usr/local")


def tensorflow_minor_version():
    """Such as "2.21"; "unknown" where TensorFlow is not installed (the library is not compiled then)."""
    try:
        return ".".join(importlib.metadata.version("tensorflow").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class BuildNativeOps(build_ext):
    """Calls the C++ compiler; a failure leaves the package without the library."""

    def get_ext_filename(self, fullname):
        # The libraries do not use Python's ABI. The ops' uses TensorFlow's, which is why its name tells the latter's
        # version: native.py reads it there before it loads anything.
        version = "" if fullname.endswith("_selective_search") else f".tf{tensorflow_minor_version()}"
        return f"{fullname.replace('.', os.sep)}{version}.so"

    def build_extension(self, ext):
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        new = output.with_suffix(".new")
        try:
            if ext.name.endswith("_selective_search"):
                compile_library([*ext.sources, "-std=c++17", "-lpthread"], new)
            else:
                flags, libraries = tensorflow_flags()
                compile_library([*flags, *ext.sources, *compile_cuda(Path(self.build_temp)), *libraries], new)
        except CompileError as error:
            print_missing(ext.name, error)
            raise
        finally:
            # Left by an earlier build in this folder, perhaps for another TensorFlow; a wheel takes what lies here.
            for library in output.parent.glob(f"{ext.name.rpartition('.')[2]}.*so"):
                if library != output or not new.exists():
                    library.unlink()
        os.replace(new, output)  # processes that have the earlier library loaded keep it


def tensorflow_flags():
    """(compiler flags, linker flags) of code that uses TensorFlow; CompileError where it cannot be imported."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise CompileError(f"TensorFlow, whose headers it needs, cannot be imported: {error}") from error
    # As system headers TensorFlow's give no warnings.
    flags = [flag.replace("-I", "-isystem", 1) for flag in tf.sysconfig.get_compile_flags()]
    return flags, tf.sysconfig.get_link_flags()


def compile_library(inputs, output):
    """Compiles and links `inputs` (sources and flags) to the library `output`; raises CompileError with the reason."""
    command = [
        *shlex.split(os.environ.get("CXX", "g++")),
        *COMPILER_FLAGS,
        *shlex.split(os.environ.get("CXXFLAGS", "")),
        *("-o", str(output)),
        *inputs,
    ]
    print(shlex.join(command), flush=True)
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompileError(f"the C++ compiler {command[0]!r} failed: {error}") from error


def compile_cuda(folder):
    """Compiles the CUDA kernels into `folder`; what the C++ compiler is to be given besides, nothing without CUDA.

    Environment variables: TF_FAST_RCNN_CUDA=0 leaves CUDA out; NVCC is the compiler's path;
    TF_FAST_RCNN_CUDA_ARCHITECTURES, such as "80 90", are compute capabilities; nvcc itself reads NVCC_APPEND_FLAGS.
    """
    if os.environ.get("TF_FAST_RCNN_CUDA") == "0":
        return []
    nvcc, started = find_nvcc(), time.perf_counter()
    try:
        if nvcc is None:
            raise FileNotFoundError("no nvcc was found; name it in NVCC")
        runtime, architectures = find_static_runtime(nvcc), cuda_architectures(nvcc)
        folder.mkdir(parents=True, exist_ok=True)
        objects = [compile_kernels(nvcc, source, architectures, folder) for source in CUDA_KERNELS]
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"\nThe native RoI pooling op is built WITHOUT its CUDA kernels: {error}\n", file=sys.stderr, flush=True)
        return []
    seconds = time.perf_counter() - started
    print(f"CUDA kernels for {' '.join(map(str, architectures))} by {nvcc} in {seconds:.0f} s", flush=True)
    # TensorFlow's own library has stubs of CUDA's functions, so the runtime must come before it, and its names must not
    # be seen from outside.
    oldest = f"-DTF_FAST_RCNN_OLDEST_CUDA_ARCHITECTURE={min(architectures)}"
    return [oldest, CUDA_OP, *objects, str(runtime), "-Wl,--exclude-libs,ALL", "-ldl", "-lrt", "-lpthread"]


def find_nvcc():
    """The path of the CUDA compiler, or None.

    CUDA 12 is preferred: what it builds runs with drivers from 525 on, and what CUDA 13 builds from 580 on.
    """
    cuda_12 = sorted(
        CUDA_TOOLKITS.glob("cuda-12*/bin/nvcc"), key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))]
    )
    found = [os.environ.get("NVCC"), *map(str, reversed(cuda_12)), shutil.which("nvcc")]
    found += map(str, CUDA_TOOLKITS.glob("cuda/bin/nvcc"))
    return next(filter(None, found), None)


def find_static_runtime(nvcc):
    """The path of libcudart_static.a; nvcc, which may be a script that calls another, tells where it looks for it."""
    command = [nvcc, "--dryrun", "-x", "cu", "/dev/null"]
    told = subprocess.run(command, check=True, text=True, capture_output=True).stderr
    (libraries,) = re.findall(r"LIBRARIES=(.*)", told) or [""]
    folders = [Path(flag.removeprefix("-L")) for flag in shlex.split(libraries)]
    for folder in [*folders, *Path("/usr/lib").glob("*-linux-gnu")]:
        if (folder / "libcudart_static.a").exists():
            return folder / "libcudart_static.a"
    raise FileNotFoundError(f"{nvcc} has no libcudart_static.a in {', '.join(map(str, folders))}")


def cuda_architectures(nvcc):
    """The compute capabilities to compile for, as 80 for 8.0, in ascending order."""
    wanted = os.environ.get("TF_FAST_RCNN_CUDA_ARCHITECTURES")
    if wanted is not None:
        if not re.fullmatch(r"\s*\d+(\s+\d+)*\s*", wanted):
            raise ValueError(f"TF_FAST_RCNN_CUDA_ARCHITECTURES is {wanted!r}; expected numbers such as '80 90'")
        return sorted(map(int, wanted.split()))
    known = subprocess.run([nvcc, "--list-gpu-arch"], check=True, text=True, capture_output=True).stdout.split()
    architectures = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in known]
    if not architectures:
        raise ValueError(f"{nvcc} compiles for none of {CUDA_ARCHITECTURES}; set TF_FAST_RCNN_CUDA_ARCHITECTURES")
    return architectures


def compile_kernels(nvcc, source, architectures, folder):
    """Compiles one .cu file; the path of the object."""
    output = str(folder / f"{Path(source).stem}.o")
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    targets.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    host = "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"
    command = [nvcc, "-std=c++17", "-O3", "-DNDEBUG", *targets, host, "-c", source, "-o", output]
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)
    return output


def print_missing(name, error):
    if name.endswith("_selective_search"):
        what, otherwise = "selective search", "OpenCV's, which is slower"
    else:
        what, otherwise = "RoI pooling op", "the slower portable implementation (stock TensorFlow ops)"
    print(
        f"\nWARNING: tf-fast-rcnn is installed WITHOUT its native {what}: {error}\n"
        f"         It works all the same, with {otherwise}.\n"
        "         To have it, install a C++17 compiler (or name one in CXX) and install the package again.\n",
        file=sys.stderr,
        flush=True,
    )


class PlatformWheel(bdist_wheel):
    """Tags the wheel by what is in it: py3-none-PLATFORM with the library, py3-none-any without.

    The library uses no part of Python's ABI, so one wheel serves every Python version.
    """

    def run(self):
        self.run_command("build")
        if not list(Path(self.get_finalized_command("build").build_lib).rglob("_*.so")):
            self.root_is_pure = True
            self.distribution.ext_modules = []
        super().run()

    def get_tag(self):
        return ("py3", "none", "any" if self.root_is_pure else super().get_tag()[2])


if __name__ == "__main__":
    depends = [*HEADERS, *CUDA_KERNELS, CUDA_OP]
    setup(
        ext_modules=[
            Extension("tf_fast_rcnn._native_ops", SOURCES, depends=depends, optional=True),
            Extension("tf_fast_rcnn._selective_search", SEARCH_SOURCES, depends=HEADERS, optional=True),
        ],
        cmdclass={"build_ext": BuildNativeOps, "bdist_wheel": PlatformWheel},
    )
