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
# Selective search without TensorFlow, for the worker processes of `prepare`; the TensorFlow op contains it too.
SEARCH_SOURCES = sorted(map(str, Path("custom_ops/cc/selective_search").glob("*.cc")))
SEARCH_INTERFACE = "custom_ops/cc/selective_search/c_api.cc"
SOURCES = sorted(set(map(str, Path("custom_ops/cc").rglob("*.cc"))) - {CUDA_OP, SEARCH_INTERFACE})
HEADERS = sorted(str(path) for pattern in ("*.h", "*.cuh") for path in Path("custom_ops/cc").rglob(pattern))

# Flags for every build. No -march=native, since the library may be copied to another machine.
# -ffp-contract=off: the edges of RoI bins are defined by separately rounded float32 operations.
# -fno-math-errno: the compiler cannot vectorise a square root that may set errno.
COMPILER_FLAGS = ["-O3", "-Wall", "-Wextra", "-DNDEBUG", "-fPIC", "-shared", "-fvisibility=hidden"]
COMPILER_FLAGS += ["-ffp-contract=off", "-fno-math-errno"]

# Compute capabilities: those of TensorFlow's wheels from 7.0 on; nvcc 13 no longer supports the oldest. Machine code
# also runs on later GPUs of the same major version; for newer ones the driver compiles the PTX of the last one listed.
CUDA_ARCHITECTURES = (70, 75, 80, 90)
CUDA_TOOLKITS = Path("/usr/local")


def tensorflow_minor_version():
    """For example "2.21"; "unknown" if TensorFlow is not installed (then the library is not compiled)."""
    try:
        return ".".join(importlib.metadata.version("tensorflow").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class BuildNativeOps(build_ext):
    """Calls the C++ compiler. If it fails, the package is installed without the library."""

    def get_ext_filename(self, fullname):
        # The libraries do not use Python's ABI. The library of the ops uses TensorFlow's, so its name contains the
        # version of TensorFlow, which native.py checks before it loads the library.
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
            # Left by an earlier build, perhaps for another TensorFlow; a wheel would include it.
            for library in output.parent.glob(f"{ext.name.rpartition('.')[2]}.*so"):
                if library != output or not new.exists():
                    library.unlink()
        os.replace(new, output)  # processes that have loaded the earlier library keep using it


def tensorflow_flags():
    """(compiler flags, linker flags) for code that uses TensorFlow; CompileError if TensorFlow cannot be imported."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise CompileError(f"TensorFlow cannot be imported, and its headers are required: {error}") from error
    # The compiler does not warn about TensorFlow's headers if they are system headers.
    flags = [flag.replace("-I", "-isystem", 1) for flag in tf.sysconfig.get_compile_flags()]
    return flags, tf.sysconfig.get_link_flags()


def compile_library(inputs, output):
    """Compiles and links `inputs` (sources and flags) into the library `output`; raises CompileError on failure."""
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
    """Compiles the CUDA kernels into `folder`; returns additional inputs for the C++ compiler, or [] without CUDA.

    Environment variables: TF_FAST_RCNN_CUDA=0 disables CUDA; NVCC is the path of nvcc; TF_FAST_RCNN_CUDA_ARCHITECTURES
    lists compute capabilities, for example "80 90"; nvcc itself reads NVCC_APPEND_FLAGS.
    """
    if os.environ.get("TF_FAST_RCNN_CUDA") == "0":
        return []
    nvcc, started = find_nvcc(), time.perf_counter()
    try:
        if nvcc is None:
            raise FileNotFoundError("nvcc was not found; set NVCC to its path")
        runtime, architectures = find_static_runtime(nvcc), cuda_architectures(nvcc)
        folder.mkdir(parents=True, exist_ok=True)
        objects = [compile_kernels(nvcc, source, architectures, folder) for source in CUDA_KERNELS]
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"\nThe native RoI pooling op is built WITHOUT its CUDA kernels: {error}\n", file=sys.stderr, flush=True)
        return []
    seconds = time.perf_counter() - started
    print(f"CUDA kernels for {' '.join(map(str, architectures))} by {nvcc} in {seconds:.0f} s", flush=True)
    # TensorFlow's library contains stubs of the CUDA functions, so the CUDA runtime must be linked before it, and its
    # symbols must not be exported.
    oldest = f"-DTF_FAST_RCNN_OLDEST_CUDA_ARCHITECTURE={min(architectures)}"
    return [oldest, CUDA_OP, *objects, str(runtime), "-Wl,--exclude-libs,ALL", "-ldl", "-lrt", "-lpthread"]


def find_nvcc():
    """The path of the CUDA compiler, or None.

    CUDA 12 is preferred because its binaries run with drivers from 525 on; those of CUDA 13 need 580.
    """
    cuda_12 = sorted(
        CUDA_TOOLKITS.glob("cuda-12*/bin/nvcc"), key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))]
    )
    found = [os.environ.get("NVCC"), *map(str, reversed(cuda_12)), shutil.which("nvcc")]
    found += map(str, CUDA_TOOLKITS.glob("cuda/bin/nvcc"))
    return next(filter(None, found), None)


def find_static_runtime(nvcc):
    """The path of libcudart_static.a. nvcc prints its library path; it may be a script that calls another nvcc."""
    command = [nvcc, "--dryrun", "-x", "cu", "/dev/null"]
    printed = subprocess.run(command, check=True, text=True, capture_output=True).stderr
    (libraries,) = re.findall(r"LIBRARIES=(.*)", printed) or [""]
    folders = [Path(flag.removeprefix("-L")) for flag in shlex.split(libraries)]
    for folder in [*folders, *Path("/usr/lib").glob("*-linux-gnu")]:
        if (folder / "libcudart_static.a").exists():
            return folder / "libcudart_static.a"
    raise FileNotFoundError(f"{nvcc} has no libcudart_static.a in {', '.join(map(str, folders))}")


def cuda_architectures(nvcc):
    """The compute capabilities to compile for (80 means 8.0), in ascending order."""
    wanted = os.environ.get("TF_FAST_RCNN_CUDA_ARCHITECTURES")
    if wanted is not None:
        if not re.fullmatch(r"\s*\d+(\s+\d+)*\s*", wanted):
            raise ValueError(f"TF_FAST_RCNN_CUDA_ARCHITECTURES is {wanted!r}; expected numbers, e.g. '80 90'")
        return sorted(map(int, wanted.split()))
    known = subprocess.run([nvcc, "--list-gpu-arch"], check=True, text=True, capture_output=True).stdout.split()
    architectures = [number for number in CUDA_ARCHITECTURES if f"compute_{number}" in known]
    if not architectures:
        raise ValueError(
            f"{nvcc} supports none of the architectures {CUDA_ARCHITECTURES}; set TF_FAST_RCNN_CUDA_ARCHITECTURES"
        )
    return architectures


def compile_kernels(nvcc, source, architectures, folder):
    """Compiles one .cu file; returns the path of the object file."""
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
        f"         It still works, using {otherwise}.\n"
        "         For the native version, install a C++17 compiler (or set CXX to one) and reinstall the package.\n",
        file=sys.stderr,
        flush=True,
    )


class PlatformWheel(bdist_wheel):
    """Tags the wheel by its contents: py3-none-PLATFORM with the library, py3-none-any without it.

    The library does not use Python's ABI, so one wheel works with every Python version.
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
