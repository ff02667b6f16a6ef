"""Caffe's pooling and normalisation compared with loops over windows and channels."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from caffe_numpy import max_pool, normalize, pooled_size
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn import InputError
from tf_fast_rcnn.models.backbones.caffe_layers import CaffeMaxPooling2D, LocalResponseNormalization

# (kernel, stride, pad): those of the networks, cases in which the last window is dropped, and others.
POOLINGS = [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 2, 1), (3, 3, 1), (3, 1, 1), (5, 3, 2)]


def negative_map(height, width, channels=2, seed=0):
    """Negative, so that padding with zeros would be noticed."""
    return -np.random.default_rng(seed).uniform(1, 9, (1, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize(("kernel", "stride", "pad"), POOLINGS)
def test_pooling_is_caffes_for_all_small_sizes(kernel, stride, pad):
    layer = CaffeMaxPooling2D(kernel, stride, pad)
    sides = [side for side in range(1, 21) if pooled_size(side, kernel, stride, pad) > 0]
    assert len(sides) >= 19
    for height in sides:
        x = negative_map(height, 21 - height if 21 - height in sides else 20)
        expected = max_pool(x[0].transpose(2, 0, 1), kernel, stride, pad).transpose(1, 2, 0)
        np.testing.assert_array_equal(layer(x)[0], expected)
        assert layer.compute_output_shape(x.shape) == (1, *expected.shape)


def test_gradients_go_to_the_cells_of_the_map():
    x = tf.constant(negative_map(6, 7))
    with tf.GradientTape() as tape:
        tape.watch(x)
        pooled = CaffeMaxPooling2D(3, 2, 1)(x)
    gradient = tape.gradient(pooled, x).numpy()
    assert gradient.sum() == pooled.numpy().size == 1 * 4 * 4 * 2
    np.testing.assert_allclose((gradient * x).numpy().sum(), pooled.numpy().sum(), rtol=1e-6)


def layers_model(dtype="float32"):
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", dtype=dtype)(images)
    x = LocalResponseNormalization(3, alpha=0.5, beta=0.6, k=2.0, dtype=dtype, name="norm")(x)
    return keras.Model(images, CaffeMaxPooling2D(3, 2, 1, dtype=dtype, name="pool")(x))


def test_layers_come_back_from_a_file(tmp_path):
    model = layers_model()
    model.save(tmp_path / "layers.keras")
    loaded = keras.models.load_model(tmp_path / "layers.keras")
    for shape in [(1, 9, 14, 3), (2, 8, 5, 3)]:
        images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(loaded(images), model(images))
    assert loaded.get_layer("pool").get_config() == model.get_layer("pool").get_config()
    norm = loaded.get_layer("norm")
    assert (norm.local_size, norm.alpha, norm.beta, norm.k) == (3, 0.5, 0.6, 2.0)


def test_layers_take_maps_of_unknown_size_in_graphs():
    model, x = layers_model(), np.random.default_rng(0).normal(size=(1, 11, 8, 3)).astype(np.float32)
    function = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3])])
    np.testing.assert_allclose(function(x), model(x), rtol=1e-6)


def test_layers_convert_to_tensorflow_lites_own_ops():
    model, x = layers_model(), np.random.default_rng(0).normal(size=(1, 11, 8, 3)).astype(np.float32)
    function = tf.function(model, input_signature=[tf.TensorSpec([1, 11, 8, 3])])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, model(x), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    channels=st.integers(1, 9),
    local_size=st.sampled_from([1, 3, 5, 7]),
    alpha=st.floats(1e-5, 2),
    beta=st.floats(0.1, 1),
    k=st.floats(0.5, 3),
)
def test_normalization_is_caffes(channels, local_size, alpha, beta, k):
    x = np.random.default_rng(channels).normal(0, 3, (2, 3, channels)).astype(np.float32)
    expected = normalize(x.transpose(2, 0, 1).astype(np.float64), alpha, k, local_size, beta).transpose(1, 2, 0)
    found = LocalResponseNormalization(local_size, alpha, beta, k)(x[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_normalization_squares_no_half_numbers():
    """700 squared overflows float16."""
    x = np.full((1, 2, 2, 3), 700, np.float16)
    found = LocalResponseNormalization(3, alpha=3.0, beta=0.5, k=0.0, dtype="float16")(x)
    assert found.dtype == "float16"
    np.testing.assert_allclose(found[0, 0, 0], np.array([2, 3, 2]) ** -0.5, rtol=1e-3)


@pytest.mark.parametrize(("size", "stride", "pad"), [(2, 3, 0), (3, 0, 0), (2, 2, 2), (3, 2, -1)])
def test_windows_that_leave_cells_out_are_input_errors(size, stride, pad):
    with pytest.raises(ValueError, match="strides"):
        CaffeMaxPooling2D(size, stride, pad)


def test_an_even_neighbourhood_is_an_input_error():
    with pytest.raises(InputError, match=r"found local_size 4; expected an odd number of channels"):
        LocalResponseNormalization(4)
