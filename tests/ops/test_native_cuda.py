"""Checks for the CUDA kernels: whether the library contains them, and whether they can run on this machine.

The tests simulate a GPU; the kernels themselves are tested in tests/ops/test_cuda_kernels.py.
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import warnings

import pytest
import tensorflow as tf

from tf_fast_rcnn.ops import native
from tf_fast_rcnn.ops.native import CudaVersions

PROJECT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def pretend(monkeypatch):
    """A function that makes TensorFlow see GPUs with these compute capabilities, and a library with these versions."""

    def pretend(capabilities, versions=None):
        details = [{"compute_capability": capability} if capability else {} for capability in capabilities]
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: details if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: gpu)
        monkeypatch.setattr(native, "cuda_versions", lambda library: versions)

    native.why_no_cuda.cache_clear()
    yield pretend
    native.why_no_cuda.cache_clear()


def test_without_a_gpu_there_is_nothing_to_say(pretend):
    pretend([], versions=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.why_no_cuda() is None


@pytest.mark.parametrize(
    ("versions", "capabilities", "reason"),
    [
        (None, [(9, 0)], r"without CUDA kernels; install the CUDA toolkit \(nvcc\) and reinstall tf-fast-rcnn"),
        (CudaVersions(13000, 12080, 75), [(9, 0)], "driver for CUDA 12.8, .* built with CUDA 13.0"),
        (CudaVersions(12050, 11080, 70), [(9, 0)], "driver for CUDA 11.8, .* built with CUDA 12.5"),
        (CudaVersions(13000, 13010, 75), [(9, 0), (7, 0)], "compute capability 7.0, .* built for 7.5 and later"),
    ],
)
def test_unusable_gpu_is_reported_once(pretend, versions, capabilities, reason):
    pretend(capabilities, versions)
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        found = native.why_no_cuda()
    assert native.why_no_cuda() == found
    assert len(caught) == 1
    assert "\n" not in found


@pytest.mark.parametrize(
    ("versions", "capabilities"),
    [
        (CudaVersions(13000, 13000, 75), [(7, 5)]),
        (CudaVersions(12050, 12020, 70), [(9, 0)]),  # within a major version any driver runs any runtime
        (CudaVersions(12050, 13000, 70), [(12, 0), (8, 6)]),
        (CudaVersions(12050, 13000, 70), [None]),  # TensorFlow does not report it
    ],
)
def test_gpu_that_the_kernels_can_use(pretend, versions, capabilities):
    pretend(capabilities, versions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.why_no_cuda() is None


def test_library_without_cuda_has_no_versions(tmp_path):
    """The exported functions decide: a build with TF_FAST_RCNN_CUDA=0 leaves out the file that exports them."""
    for source, versions in (
        ("int other() { return 0; }", None),
        (
            "int tf_fast_rcnn_cuda_runtime() { return 12050; } int tf_fast_rcnn_cuda_driver() { return 13000; }"
            "int tf_fast_rcnn_cuda_oldest_architecture() { return 70; }",
            CudaVersions(runtime=12050, driver=13000, oldest_architecture=70),
        ),
    ):
        library = tmp_path / f"with_{versions is not None}.so"
        command = [*shlex.split(os.environ.get("CXX", "g++")), "-shared", "-fPIC", "-x", "c", "-", "-o", library]
        subprocess.run(command, input=source, text=True, check=True)
        assert native.cuda_versions(library) == versions


def test_the_built_library_and_its_kernels_agree():
    """GPU kernels are registered if and only if the library reports that it contains them."""
    from tensorflow.python.framework import kernels

    native.native_ops()
    versions = native.cuda_versions(native.find_library(native._PACKAGE, tf.__version__))
    for op in ("RoiPool", "RoiPoolWithArgmax", "RoiPoolGrad"):
        registered = kernels.get_registered_kernels_for_op(f"TfFastRcnn>{op}").kernel
        types_of_gpu = [kernel.constraint[0] for kernel in registered if kernel.device_type == "GPU"]
        assert len(types_of_gpu) == (0 if versions is None else 4)
    if versions is not None:
        assert versions.runtime >= 12000
        assert versions.driver == 0 or versions.driver >= 11000
        assert versions.oldest_architecture >= 60


def test_the_question_leaves_the_devices_alone():
    """Memory growth, for example, cannot be set after TensorFlow has initialised its devices."""
    code = """
from tensorflow.python.eager import context
from tf_fast_rcnn.ops import native
assert not context.context()._initialized
native.why_no_cuda()
assert not context.context()._initialized
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_benchmark_says_in_one_line_why_it_measures_nothing():
    command = [sys.executable, PROJECT / "tools/roi_pooling_cuda.py"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert re.search(r"\nnothing measured: .*(not installed|see a GPU)\n$", ran.stderr)
