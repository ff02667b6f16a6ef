"""Preprocessing of RGB images for a network, as a layer of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_CHANNEL_ORDERS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0]}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class Preprocessing(keras.layers.Layer):
    """Reorders the channels, then computes `(x - mean) * scale` per channel.

    It is a layer of the model so that training and serving cannot differ. It computes in float32 under any dtype
    policy, because half types cannot represent pixel values minus a mean exactly.

    Args:
        channel_order: "rgb" or "bgr", the order that the network expects.
        mean: three floats in units of pixel values (0..255), in the network's channel order.
        scale: three floats, in the network's channel order. The default mean and scale change nothing.

    Call: float32 `[B, H, W, 3]`, RGB 0..255 -> float32 `[B, H, W, 3]`.

    Raises:
        InputError: if the channel order is unknown, or mean or scale are not three finite numbers.

    Example:
        >>> Preprocessing("bgr", mean=[10, 0, 0])(np.float32([[[[1, 2, 3]]]])).numpy().tolist()
        [[[[-7.0, 2.0, 1.0]]]]
    """

    def __init__(
        self,
        channel_order: str = "rgb",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        scale: Sequence[float] = (1.0, 1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if channel_order not in _CHANNEL_ORDERS:
            raise InputError(f"channel_order: found {channel_order!r}; expected 'rgb' or 'bgr'; choose one of these")
        self.channel_order = channel_order
        self.mean = _three_floats("mean", mean)
        self.scale = _three_floats("scale", scale)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        images = keras.ops.cast(images, "float32")
        if self.channel_order == "bgr":
            images = keras.ops.flip(images, axis=-1)
        return (images - _constant(self.mean)) * _constant(self.scale)

    def compute_output_spec(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channel_order": self.channel_order,
            "mean": list(self.mean),
            "scale": list(self.scale),
        }


def _three_floats(name, values):
    if np.shape(values) != (3,) or not np.all(np.isfinite(np.asarray(values, np.float64))):
        raise InputError(f"{name}: found {values!r}; expected three finite numbers; pass one per channel")
    return tuple(float(value) for value in values)


def _constant(values):
    """One number if all are equal: TensorFlow takes four times as long with three."""
    return np.float32(values[0] if len(set(values)) == 1 else values)


def preprocessing_from_function(
    preprocess_input: Callable[[np.ndarray], np.ndarray], name: str = "preprocessing"
) -> Preprocessing:
    """Creates the `Preprocessing` that is equivalent to a `preprocess_input` function of keras.applications.

    The constants of these functions are not available, but each function is affine per channel, possibly after a
    reversal of the channels. A black pixel reveals the offsets; pure red, green and blue pixels reveal the order and
    the scales.

    Args:
        preprocess_input: function from NumPy arrays `[N, H, W, 3]`, RGB 0..255, to arrays of the same shape; it may
            overwrite its argument.
        name: name of the layer.

    Raises:
        InputError: if the function does not have this form.

    Example:
        >>> layer = preprocessing_from_function(keras.applications.vgg16.preprocess_input)
        >>> layer.channel_order, layer.mean
        ('bgr', (103.939, 116.779, 123.68))
    """
    black = np.zeros((1, 3))
    offset = _preprocess_pixels(preprocess_input, black)[0]
    response = (_preprocess_pixels(preprocess_input, 255.0 * np.eye(3)) - offset) / 255.0  # [input, output] channel
    source = list(np.argmax(np.abs(response), axis=0))
    channel_order = next((order for order, channels in _CHANNEL_ORDERS.items() if channels == source), None)
    scale = response[source, [0, 1, 2]]

    probes = np.array([[255.0, 255.0, 255.0], [12.0, 130.0, 247.0], [201.5, 77.25, 3.0]])
    found = _preprocess_pixels(preprocess_input, probes)
    if channel_order is None or not np.allclose(probes[:, source] * scale + offset, found, rtol=1e-4, atol=1e-4):
        raise InputError(
            f"{name}: found a preprocess_input that is not just a channel order, a mean and a scale; expected only "
            "these; pass a `preprocessing` layer that does the same"
        )
    # Adding 0.0 turns the -0.0 of an offset of 0 into 0.0. Rounding removes errors of the subtractions above.
    mean = np.round(-offset / scale, 6) + 0.0
    return Preprocessing(channel_order, mean, scale, name=name)


def _preprocess_pixels(preprocess_input, pixels):
    """Applies a function on float images, which may overwrite its argument, to pixels `[N, 3]`."""
    return np.asarray(preprocess_input(np.array(pixels[:, None, None, :])), np.float64)[:, 0, 0, :]
