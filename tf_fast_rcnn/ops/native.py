"""Finds and loads the compiled ops, or says why it cannot.

setup.py compiles the library into this package. It uses TensorFlow's C++ interface, which changes with every minor
version of TensorFlow: loading a library that was built for another one may crash the process. So the library's file
name tells the version, and a library for another version is never opened.
"""

from __future__ import annotations

import ctypes
import functools
import pathlib
import types
import warnings
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_PACKAGE = pathlib.Path(__file__).parents[1]
_REINSTALL = (
    "install tf-fast-rcnn again where a C++17 compiler is found (`pip install -v` shows the compiler's messages)"
)


def native_ops_available() -> bool:
    """Whether the compiled ops are loaded; loads them at the first call. `why_unavailable` tells the reason.

    Example:
        >>> implementation = "native" if native_ops_available() else "portable"
    """
    return _load()[0] is not None


def why_unavailable() -> str | None:
    """Why the compiled ops cannot be used, in one sentence; None where they can."""
    return _load()[1]


def native_ops() -> types.ModuleType:
    """The module of the compiled ops' Python functions.

    Raises:
        InputError: they cannot be used; says why.
    """
    ops, reason = _load()
    if ops is None:
        raise InputError(f"native ops: found {reason}; expected the compiled library; {_REINSTALL}")
    return ops


@functools.cache
def _load():
    """(ops, None) or (None, reason). Cached, so that a process looks for the library and warns once."""
    try:
        return tf.load_op_library(str(find_library(_PACKAGE, tf.__version__))), None
    except FileNotFoundError as error:
        reason = str(error)
    except (tf.errors.OpError, RuntimeError) as error:
        reason = f"a library that TensorFlow {tf.__version__} cannot load ({error})"
    warnings.warn(
        f"RoI pooling uses the slower portable implementation: found {reason}; {_REINSTALL}",
        RuntimeWarning,
        stacklevel=3,
    )
    return None, reason


@functools.cache
def why_no_cuda() -> str | None:
    """Why the compiled ops cannot run on the GPUs that TensorFlow uses here, in one sentence.

    None where they can, where there is no GPU, and where there are no compiled ops at all (see `why_unavailable`). Asks
    for the list of GPUs, which does not occupy them, and warns once where there is a reason.

    Example:
        >>> native_ops_available() and why_no_cuda() is None  # what "auto" asks
        True
    """
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus or not native_ops_available():
        return None
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
    capabilities = [10 * major + minor for major, minor in filter(None, capabilities)]
    reason = _cuda_obstacle(cuda_versions(find_library(_PACKAGE, tf.__version__)), capabilities)
    if reason is not None:
        warnings.warn(
            f"RoI pooling uses the slower portable implementation on this machine's GPU: found {reason}",
            RuntimeWarning,
            stacklevel=3,
        )
    return reason


class CudaVersions(NamedTuple):
    """What the library's CUDA kernels need and find: versions as 12050 for 12.5, compute capabilities as 80 for 8.0."""

    runtime: int
    driver: int  # the latest version that the driver supports; 0 where there is no driver
    oldest_architecture: int


def cuda_versions(library: StrPath) -> CudaVersions | None:
    """CudaVersions of the compiled library at this path; None where it was built without CUDA."""
    functions = ctypes.CDLL(str(library))
    try:
        return CudaVersions(*(getattr(functions, f"tf_fast_rcnn_cuda_{name}")() for name in CudaVersions._fields))
    except AttributeError:
        return None


def _cuda_obstacle(versions, capabilities):
    """Why kernels of these CudaVersions cannot run on GPUs of these compute capabilities, or None."""
    if versions is None:
        return (
            "native ops without CUDA kernels; install tf-fast-rcnn again where nvcc is found (`pip install -v` shows "
            "the compiler's messages)"
        )
    # Within a major version any driver runs any runtime.
    if versions.driver // 1000 < versions.runtime // 1000:
        found, needed = (f"{version // 1000}.{version % 1000 // 10}" for version in (versions.driver, versions.runtime))
        return (
            f"a driver for CUDA {found}, while the native ops were built with CUDA {needed}; update the driver, or "
            "install tf-fast-rcnn again with NVCC naming an older CUDA's nvcc"
        )
    if capabilities and min(capabilities) < versions.oldest_architecture:
        oldest = min(capabilities)
        return (
            f"a GPU of compute capability {oldest / 10}, while the native ops were built for "
            f"{versions.oldest_architecture / 10} and later; install tf-fast-rcnn again with "
            f"TF_FAST_RCNN_CUDA_ARCHITECTURES={oldest}"
        )
    return None


def find_library(folder: pathlib.Path, tensorflow_version: str) -> pathlib.Path:
    """The path of the library in `folder` that was built for this minor version of TensorFlow.

    Args:
        folder: pathlib.Path.
        tensorflow_version: such as "2.21.0".

    Raises:
        FileNotFoundError: there is none; tells the versions that were found instead.
    """
    minor_version = ".".join(tensorflow_version.split(".")[:2])
    library = folder / f"_native_ops.tf{minor_version}.so"
    if library.exists():
        return library
    others = sorted(
        path.name.removeprefix("_native_ops.tf").removesuffix(".so") for path in folder.glob("_native_ops.tf*")
    )
    if others:
        raise FileNotFoundError(f"a library built for TensorFlow {', '.join(others)}, while {tensorflow_version} runs")
    raise FileNotFoundError(f"no compiled library for TensorFlow {minor_version} in {folder}")
