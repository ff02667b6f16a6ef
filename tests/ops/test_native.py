"""Finding and loading the compiled library, and the messages if that fails."""

import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn import InputError, RoIPooling, native_ops_available, roi_pool
from tf_fast_rcnn.ops import native


@pytest.fixture
def package_folder(tmp_path, monkeypatch):
    """An empty folder in place of the package's own. Clears the caches, so that the library is searched for again, and
    once more after the test."""
    monkeypatch.setattr(native, "_PACKAGE", tmp_path)
    for cached in (native._load, native.why_no_cuda):
        cached.cache_clear()
    yield tmp_path
    for cached in (native._load, native.why_no_cuda):
        cached.cache_clear()


def test_the_library_is_there():
    assert native_ops_available(), native.why_unavailable()
    assert native.why_unavailable() is None
    assert native.native_ops() is native.native_ops()


def test_library_is_found_by_the_minor_version(tmp_path):
    for version in ("2.20", "2.21"):
        (tmp_path / f"_native_ops.tf{version}.so").touch()
    assert native.find_library(tmp_path, "2.21.0-rc1").name == "_native_ops.tf2.21.so"


def check_fallback(reason):
    """Warns only once; "auto" keeps working; "native" raises an error with the reason."""
    features, rois = tf.reshape(tf.range(4.0), [1, 2, 2, 1]), tf.constant([[[0.0, 0, 1, 1]]])
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        assert not native_ops_available()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(roi_pool(features, rois, (1, 1), 1.0), [[[[[3]]]]])
        assert RoIPooling(implementation="auto").supports_jit
    with pytest.raises(InputError, match=reason) as raised:
        roi_pool(features, rois, (1, 1), 1.0, implementation="native")
    assert "\n" not in str(raised.value)


def test_missing_library(package_folder):
    check_fallback(f"no compiled library for TensorFlow {'.'.join(tf.__version__.split('.')[:2])}")


def test_library_for_another_tensorflow_is_not_opened(package_folder, monkeypatch):
    (package_folder / "_native_ops.tf1.15.so").touch()
    opened = []
    monkeypatch.setattr(tf, "load_op_library", opened.append)
    check_fallback(f"built for TensorFlow 1.15, but {tf.__version__} is running")
    assert opened == []


def test_library_that_does_not_load(package_folder):
    (package_folder / f"_native_ops.tf{'.'.join(tf.__version__.split('.')[:2])}.so").write_bytes(b"not a library")
    check_fallback(f"a library that TensorFlow {tf.__version__} cannot load")


LOAD_FROM = """
import pathlib, sys
from tf_fast_rcnn.ops import native
native._PACKAGE = pathlib.Path(sys.argv[1])
assert native.native_ops_available(), native.why_unavailable()
"""


def test_library_loads_from_any_folder(tmp_path):
    """Runs in a separate process, because a library loaded from two folders would register its kernels twice."""
    shutil.copy(native.find_library(pathlib.Path(native.__file__).parents[1], tf.__version__), tmp_path)
    subprocess.run([sys.executable, "-c", LOAD_FROM, tmp_path], check=True)
