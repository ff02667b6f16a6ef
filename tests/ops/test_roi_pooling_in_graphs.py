"""roi_pool inside other TensorFlow APIs: tf.data, tf.map_fn, tf.vectorized_map, tf.distribute."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from naive_roi_pooling import naive_roi_pool

from tf_fast_rcnn import roi_pool

IMAGES, HEIGHT, WIDTH, CHANNELS, ROIS = 4, 7, 9, 5, 6
both_implementations = pytest.mark.parametrize("implementation", ["native", "portable"])


@pytest.fixture(scope="module")
def inputs():
    """Features, RoIs, and the naive loop's result for 2 x 3 bins at scale 1."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(IMAGES, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
    rois = rng.uniform(-2, 10, (IMAGES, ROIS, 4)).astype(np.float32)
    return features, rois, naive_roi_pool(features, rois, (2, 3), 1.0)[0]


@both_implementations
def test_in_a_tf_data_pipeline(inputs, implementation):
    features, rois, expected = inputs
    images = tf.data.Dataset.from_tensor_slices((features, rois)).batch(1)
    pooled = images.map(
        lambda features, rois: roi_pool(features, rois, (2, 3), 1.0, implementation), num_parallel_calls=2
    )
    np.testing.assert_array_equal(np.concatenate(list(pooled.as_numpy_iterator())), expected)


def pool_one(implementation):
    return lambda image: roi_pool(image[0][None], image[1][None], (2, 3), 1.0, implementation)[0]


@both_implementations
def test_in_map_fn(inputs, implementation):
    features, rois, expected = inputs
    pooled = tf.map_fn(pool_one(implementation), (features, rois), fn_output_signature=tf.float32)
    np.testing.assert_array_equal(pooled, expected)


@both_implementations
def test_in_vectorized_map(inputs, implementation):
    """The native op has no vectorised form, so TensorFlow falls back to a loop."""
    features, rois, expected = inputs
    pooled = tf.vectorized_map(pool_one(implementation), (tf.constant(features), tf.constant(rois)))
    np.testing.assert_array_equal(pooled, expected)


@both_implementations
def test_loops_are_differentiated(inputs, implementation):
    features, rois, _ = inputs
    weight = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        pooled = tf.map_fn(pool_one(implementation), (weight * features, rois), fn_output_signature=tf.float32)
        total = tf.reduce_sum(pooled)
    np.testing.assert_allclose(tape.gradient(total, weight), total / 2.0, rtol=1e-5)


TRAIN_TWICE = """
import sys
import keras
import numpy as np
import tensorflow as tf
from tf_fast_rcnn import RoIPooling

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])


def scaled_pooling():
    features, rois = keras.Input((7, 9, 5), name="features"), keras.Input((6, 4), name="rois")
    scaled = keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones")(features)
    pooled = RoIPooling((2, 3), 1.0, sys.argv[2])(scaled, rois)
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((-1, 5))(pooled))
    return keras.Model({"features": features, "rois": rois}, keras.layers.Dense(1, kernel_initializer="ones")(mean))


inputs, weights = dict(np.load(sys.argv[1] + "/inputs.npz")), []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])):
    with strategy.scope():
        model = scaled_pooling()
        model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=False)
    model.fit(inputs, np.ones(len(inputs["features"])), batch_size=4, epochs=3, verbose=0)
    weights.append(model.get_weights()[0].ravel())
assert strategy.num_replicas_in_sync == 2
np.save(sys.argv[1] + "/weights.npy", weights)
"""


@both_implementations
def test_two_replicas_train_as_one(inputs, implementation, tmp_path):
    """Two logical CPUs, each with half of the images; in a separate process, because they are created at its
    start.
    """
    np.savez(tmp_path / "inputs.npz", features=inputs[0], rois=inputs[1])
    subprocess.run([sys.executable, "-c", TRAIN_TWICE, tmp_path, implementation], check=True)
    one, two = np.load(tmp_path / "weights.npy")
    assert np.abs(one - 1).min() > 0.01
    np.testing.assert_allclose(two, one, rtol=1e-5)
