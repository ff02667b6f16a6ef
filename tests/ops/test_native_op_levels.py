"""The native op returns the same bits for every instruction set, and the same as a naive loop over the rule.

The library reads TF_FAST_RCNN_CPU when it is loaded, so each level runs in its own process. A level that the CPU does
not support falls back to the highest supported one.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from naive_roi_pooling import naive_gradient, naive_roi_pool
from test_roi_pooling import random_rois

from tf_fast_rcnn.ops.native import native_ops

LEVELS = ["baseline", "avx2", "avx512"]
DTYPES = ["float32", "float64", "bfloat16", "float16"]
CHANNELS = [1, 3, 8, 63, 64, 65, 130, 256]
IMAGES, HEIGHT, WIDTH, ROIS, OUTPUT_SIZE = 2, 9, 14, 12, (3, 4)

RUN_ONE_LEVEL = """
import sys
import numpy as np
import tensorflow as tf
from tf_fast_rcnn.ops.native import native_ops

ops, results = native_ops(), {}
inputs = np.load(sys.argv[1])
for dtype in sys.argv[3].split(","):
    for channels in map(int, sys.argv[4].split(",")):
        features = tf.cast(inputs[f"features{channels}"], dtype)
        attributes = {"output_height": 3, "output_width": 4, "spatial_scale": 1 / 16}
        pooled = ops.tf_fast_rcnn_roi_pool(features, inputs["rois"], **attributes)
        with_argmax = ops.tf_fast_rcnn_roi_pool_with_argmax(features, inputs["rois"], **attributes)
        upstream = tf.cast(inputs[f"upstream{channels}"], dtype)
        gradient = ops.tf_fast_rcnn_roi_pool_grad(
            upstream, with_argmax.argmax, inputs["rois"], features.shape, spatial_scale=1 / 16
        )
        arrays = {"pooled": pooled, "pooled_too": with_argmax.pooled, "gradient": gradient}
        name = f"{dtype} {channels} "
        # NumPy cannot store bfloat16; float64 holds every value and the sign of every zero.
        results |= {name + key: tf.cast(array, tf.float64).numpy() for key, array in arrays.items()}
        results[name + "argmax"] = with_argmax.argmax.numpy()
np.savez(sys.argv[2], **results)
"""


def some_inputs():
    """Few distinct features, including both zeros and infinities: many ties, of which the first must win."""
    rng = np.random.default_rng(7)
    values = np.array([-np.inf, -2.0, -0.0, 0.0, 0.5, np.inf])
    inputs = {"rois": random_rois(rng, IMAGES, ROIS, 16 * HEIGHT, 16 * WIDTH)}
    inputs["rois"][1, 2, 0] = np.nan
    for channels in CHANNELS:
        shape = (IMAGES, HEIGHT, WIDTH, channels)
        inputs[f"features{channels}"] = rng.choice(values, shape, p=[0.5, 0.2, 0.14, 0.14, 0.01, 0.01])
        inputs[f"upstream{channels}"] = rng.integers(-8, 8, (IMAGES, ROIS, *OUTPUT_SIZE, channels)).astype(np.float64)
    return inputs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """(inputs, {level: outputs})."""
    folder = tmp_path_factory.mktemp("levels")
    inputs = some_inputs()
    np.savez(folder / "inputs.npz", **inputs)
    arguments = [",".join(DTYPES), ",".join(map(str, CHANNELS))]
    for level in LEVELS:
        command = [sys.executable, "-c", RUN_ONE_LEVEL, folder / "inputs.npz", folder / f"{level}.npz", *arguments]
        subprocess.run(command, check=True, env=os.environ | {"TF_FAST_RCNN_CPU": level})
    return inputs, {level: dict(np.load(folder / f"{level}.npz")) for level in LEVELS}


def same_bits(actual, expected):
    np.testing.assert_array_equal(actual.view(np.int64), expected.view(np.int64))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_level_equals_the_naive_loop_to_the_bit(results, level, channels):
    inputs, outputs = results
    features = inputs[f"features{channels}"]
    pooled, argmax = naive_roi_pool(features, inputs["rois"], OUTPUT_SIZE, 1 / 16)
    gradient = naive_gradient(features, argmax, inputs[f"upstream{channels}"])
    for dtype in DTYPES:
        found = {name: outputs[level][f"{dtype} {channels} {name}"] for name in ("pooled", "pooled_too", "gradient")}
        same_bits(found["pooled"], pooled)
        same_bits(found["pooled_too"], pooled)
        np.testing.assert_array_equal(outputs[level][f"{dtype} {channels} argmax"], argmax)
        np.testing.assert_array_equal(found["gradient"], gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_denormal_features_are_told_apart(dtype):
    """TensorFlow's threads flush denormals to 0, which would make them all equal."""
    tiny = np.nextafter(np.zeros(1, dtype), np.ones(1, dtype))[0]
    features = np.array([0, tiny, 3 * tiny, 2 * tiny], dtype).reshape(1, 2, 2, 1)
    rois = np.repeat(np.array([[[0, 0, 1, 1]]], np.float32), 5000, axis=1)  # enough that every thread gets some
    found = native_ops().tf_fast_rcnn_roi_pool_with_argmax(
        features, rois, output_height=1, output_width=1, spatial_scale=1.0
    )
    assert set(found.argmax.numpy().ravel()) == {2}
    assert set(found.pooled.numpy().ravel()) == {3 * tiny}


def test_large_outputs_are_the_same():
    """Outputs of 32 MB and more bypass the cache; compared with pooling the same RoIs a few at a time."""
    rng = np.random.default_rng(8)
    features = tf.constant(rng.normal(size=(1, 20, 30, 128)), tf.float32)
    rois = random_rois(rng, 1, 1700, 320, 480)
    sizes = {"output_height": 7, "output_width": 7, "spatial_scale": 1 / 16}
    for dtype in ("float32", "bfloat16"):
        some = tf.cast(features, dtype)
        large = native_ops().tf_fast_rcnn_roi_pool_with_argmax(some, rois, **sizes)
        only = native_ops().tf_fast_rcnn_roi_pool(some, rois, **sizes)
        for first in range(0, 1700, 425):
            part = slice(first, first + 425)
            small = native_ops().tf_fast_rcnn_roi_pool_with_argmax(some, rois[:, part], **sizes)
            assert tf.reduce_all(large.pooled[:, part] == small.pooled)
            assert tf.reduce_all(only[:, part] == small.pooled)
            assert tf.reduce_all(large.argmax[:, part] == small.argmax)
