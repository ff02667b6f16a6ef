"""No input makes the op crash: any shapes and values through the public function, and the kernels alone, without
TensorFlow, under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import pathlib
import shlex
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_roi_pooling import naive_gradient, naive_roi_pool

from tf_fast_rcnn import roi_pool

CUSTOM_OPS = pathlib.Path(__file__).parents[2] / "custom_ops"
KERNELS = [CUSTOM_OPS / f"cc/kernels/roi_pool/cpu/{name}.cc" for name in ("baseline", "avx2", "avx512", "dispatch")]
KERNELS.append(CUSTOM_OPS / "cc/kernels/instruction_set.cc")


@pytest.mark.slow
def test_random_inputs_under_sanitizers(tmp_path):
    program = tmp_path / "roi_pool_fuzz"
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-std=c++17", "-O1", "-g", "-ffp-contract=off"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [CUSTOM_OPS / "test/roi_pool_fuzz.cc", *KERNELS]
    subprocess.run([*compiler, *sanitizers, *sources, "-o", program], check=True)
    ran = subprocess.run([program, "1500"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all equal" in ran.stdout


ODD = [-np.inf, -1e30, -16.0, -0.0, 0.0, 1e-40, 7.5, 8.0, 40.0, 1e30, np.inf, np.nan]
SHAPES = st.lists(st.integers(0, 4), max_size=5).map(tuple)


def fits(features, rois):
    return (
        len(features) == 4
        and len(rois) == 3
        and rois[2] == 4
        and features[0] == rois[0]
        and features[1] >= 1
        and features[2] >= 1
    )


def checked_when_it_runs(features, rois):
    """In a graph without static shapes, the op itself must check them."""
    unknown = [tf.TensorSpec(None, array.dtype) for array in (features, rois)]

    @tf.function(input_signature=unknown, autograph=False)
    def pool(features, rois):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_pool(features, rois, (2, 3), 1.0, "native", training=True)
        return pooled, tape.gradient(pooled, features)

    return pool(features, rois)


@settings(deadline=None, max_examples=150)
@given(features=SHAPES, rois=st.one_of(SHAPES, st.integers(0, 4).map(lambda images: (images, 3, 4))))
def test_any_shapes(features, rois):
    arrays = tf.ones(features), tf.zeros(rois)
    if fits(features, rois):
        pooled, gradient = checked_when_it_runs(*arrays)
        assert pooled.shape == (features[0], rois[1], 2, 3, features[3])
        assert gradient.shape == features
    else:
        for attempt in (checked_when_it_runs, lambda *arrays: roi_pool(*arrays, (2, 3), 1.0, "native")):
            with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
                attempt(*arrays)


@settings(deadline=None, max_examples=80)
@given(
    dtype=st.sampled_from(["float32", "float64", "bfloat16", "float16"]),
    channels=st.sampled_from([1, 2, 31, 63, 64, 65]),
    images=st.integers(1, 3),
    rois=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_values(dtype, channels, images, rois, seed):
    """Features contain no NaN: the value of a bin with a NaN is unspecified."""
    rng = np.random.default_rng(seed)
    features = tf.cast(rng.choice(ODD[:-1], (images, 5, 6, channels)), dtype)
    corners = rng.choice(ODD, (images, rois, 4)).astype(np.float32)
    pooled, gradient = checked_when_it_runs(features, tf.constant(corners))
    values = tf.cast(features, "float64").numpy()
    expected, argmax = naive_roi_pool(values, corners, (2, 3), 1.0)
    np.testing.assert_array_equal(tf.cast(pooled, "float64"), expected)
    ones = np.ones_like(expected)
    np.testing.assert_array_equal(tf.cast(gradient, "float64"), naive_gradient(values, argmax, ones))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_features_that_are_no_numbers(dtype):
    """They may have any effect on their own bins, but none on other bins."""
    features = np.ones((1, 4, 4, 35))
    features[0, 0, 0] = np.nan
    pooled, gradient = checked_when_it_runs(tf.cast(features, dtype), tf.constant([[[0.0, 0, 3, 3]]]))
    assert (tf.cast(pooled, "float32")[0, 0, 1] == 1).numpy().all()
    assert (tf.cast(gradient, "float32")[0, 2, 0] == 1).numpy().all()
