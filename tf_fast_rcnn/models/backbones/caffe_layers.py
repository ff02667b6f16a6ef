"""Layers that Caffe computes differently from Keras: pooling that rounds up, and local response normalisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.ops.roi_pooling import Shape


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class CaffeMaxPooling2D(keras.layers.MaxPooling2D):
    """Max pooling with Caffe's sizes: the number of windows is rounded up, and padding is the same on both sides.

    Windows `i` cover cells `i * strides - pad` to `i * strides - pad + pool_size - 1`; what of them lies outside of the
    map does not count. There are as many as it takes to cover the padded map, but none that begins beyond the map.
    (`PoolingLayer::Reshape` in Caffe's pooling_layer.cpp; PyTorch's `ceil_mode=True` is the same.)

    Args:
        pool_size: cells a side of a window.
        strides: cells from one window to the next, at most `pool_size`.
        pad: cells added before the first row and column, and after the last; less than `pool_size`.

    Call: float `[B, H, W, C]` -> `[B, h, w, C]`.

    Raises:
        InputError: for windows that would leave cells out or lie in the padding alone.

    Example:
        >>> CaffeMaxPooling2D(pool_size=3, strides=2)(tf.zeros([1, 14, 13, 8])).shape
        TensorShape([1, 7, 6, 8])
    """

    def __init__(self, pool_size: int = 3, strides: int = 2, pad: int = 0, **kwargs: Any) -> None:
        super().__init__(pool_size, strides, padding="valid", data_format="channels_last", **kwargs)
        self.pad = pad
        size, stride = self.pool_size[0], self.strides[0]
        if not (0 < stride <= size and 0 <= pad < size):
            raise InputError(
                f"{self.name}: found pool_size {size}, strides {stride}, pad {pad}; expected strides of 1 to pool_size "
                "and a pad below it; change one of them"
            )
        # With the end padded by a stride less one, rounding down gives what rounding up gives without; a window that
        # begins in the last cell ends pool_size - 1 cells behind it.
        self._margins = (pad, min(pad + stride - 1, size - 1))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        margins = [(0, 0), self._margins, self._margins, (0, 0)]
        return super().call(keras.ops.pad(inputs, margins, constant_values=-math.inf))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        padded = [side and side + sum(self._margins) for side in input_shape[1:3]]
        return super().compute_output_shape((input_shape[0], *padded, input_shape[3]))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        kept = {name: value for name, value in config.items() if name not in ("padding", "data_format")}
        return {**kept, "pool_size": self.pool_size[0], "strides": self.strides[0], "pad": self.pad}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by `(k + alpha / local_size * sum of squares of neighbouring channels) ** beta`.

    Neighbours are the `local_size` channels around a value's own, itself included, at the same place of the map. The
    arguments are those of Caffe's `lrn_param`. (A. Krizhevsky et al., "ImageNet classification with deep
    convolutional neural networks", 2012, section 3.3, where alpha is not divided by the size.) Computed in float32
    under any dtype policy: squares of activations exceed float16.

    Args:
        local_size: an odd number of channels.
        alpha, beta, k: see above.

    Call: float `[B, H, W, C]` -> the same shape.

    Raises:
        InputError: for an even `local_size`.

    Example:
        >>> layer = LocalResponseNormalization(local_size=3, alpha=3.0, beta=1.0, k=1.0)
        >>> layer(tf.constant([[[[1.0, 2.0, 0.0]]]])).numpy().round(3).tolist()      # 1 / 6, 2 / 6, 0 / 5
        [[[[0.167, 0.333, 0.0]]]]
    """

    def __init__(
        self, local_size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if local_size < 1 or local_size % 2 == 0:
            raise InputError(f"{self.name}: found local_size {local_size}; expected an odd number of channels")
        self.local_size, self.alpha, self.beta, self.k = local_size, alpha, beta, k

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        normalized = tf.nn.local_response_normalization(
            keras.ops.cast(inputs, "float32"),
            depth_radius=self.local_size // 2,
            bias=self.k,
            alpha=self.alpha / self.local_size,
            beta=self.beta,
        )
        return keras.ops.cast(normalized, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"local_size": self.local_size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return {**super().get_config(), **own}
