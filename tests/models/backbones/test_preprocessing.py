import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.preprocessing import Preprocessing, preprocessing_from_function

FAMILIES = sorted(
    name
    for name, module in vars(keras.applications).items()
    if inspect.ismodule(module) and name != "imagenet_utils" and hasattr(module, "preprocess_input")
)


def random_images(shape=(2, 5, 4, 3)):
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.float32)


def bgr_layer(**arguments):
    return Preprocessing("bgr", mean=[10.0, 20.0, 30.0], scale=[0.5, 2.0, 1.0], **arguments)


def by_hand(images):
    out = np.empty_like(images)
    out[..., 0] = (images[..., 2] - 10.0) * 0.5
    out[..., 1] = (images[..., 1] - 20.0) * 2.0
    out[..., 2] = images[..., 0] - 30.0
    return out


def test_orders_then_centres_then_scales():
    np.testing.assert_array_equal(bgr_layer()(random_images()), by_hand(random_images()))


def test_defaults_change_nothing():
    np.testing.assert_array_equal(Preprocessing()(random_images()), random_images())


def test_config_round_trip_through_a_saved_model(tmp_path):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, bgr_layer(name="preprocessing")(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("preprocessing").get_config() == bgr_layer(name="preprocessing").get_config()
    np.testing.assert_array_equal(loaded(random_images()), by_hand(random_images()))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_policies_do_not_touch_the_pixels(policy):
    images = random_images() + np.float32(
        0.0625
    )  # bfloat16 has 8 significant bits, float16 has 11: both would round these.
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, bgr_layer(dtype=policy)(inputs))
    assert model.output.dtype == "float32"
    np.testing.assert_array_equal(model(images), by_hand(images))


def test_converts_to_tflite_builtins():
    layer = bgr_layer()
    function = tf.function(layer, input_signature=[tf.TensorSpec((1, None, None, 3))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], layer)
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    images = random_images((1, 6, 7, 3))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, by_hand(images), rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probed_layer_does_what_keras_does(family):
    preprocess_input = getattr(keras.applications, family).preprocess_input
    expected = preprocess_input(random_images().copy())
    np.testing.assert_allclose(preprocessing_from_function(preprocess_input)(random_images()), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("family", "channel_order", "mean", "scale"),
    [
        ("vgg16", "bgr", [103.939, 116.779, 123.68], [1, 1, 1]),
        ("mobilenet_v2", "rgb", [127.5, 127.5, 127.5], [1 / 127.5] * 3),
        ("densenet", "rgb", [123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]),
        ("efficientnet", "rgb", [0, 0, 0], [1, 1, 1]),
    ],
)
def test_known_constants_are_found(family, channel_order, mean, scale):
    layer = preprocessing_from_function(getattr(keras.applications, family).preprocess_input)
    assert layer.channel_order == channel_order
    np.testing.assert_allclose(layer.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(layer.scale, scale, rtol=1e-6)


@pytest.mark.parametrize(
    "preprocess_input",
    [
        np.square,
        lambda images: images[..., [1, 2, 0]],
        lambda images: images - images.mean(axis=-1, keepdims=True),
        np.zeros_like,
    ],
)
def test_other_functions_are_refused(preprocess_input):
    with pytest.raises(InputError, match=r"^odd: found a preprocess_input that is not just a channel order"):
        preprocessing_from_function(preprocess_input, name="odd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channel_order": "gbr"}, "channel_order: found 'gbr'"),
        ({"mean": [1.0, 2.0]}, "mean: found"),
        ({"scale": [1.0, np.nan, 1.0]}, "scale: found"),
    ],
)
def test_wrong_arguments_are_input_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        Preprocessing(**arguments)
