"""Mixed precision: layers compute in a half type, while weights, RoIs, scores, boxes and losses stay float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tf_fast_rcnn.models.parts import (
    BOX_BY_CLASS,
    BOX_DELTAS,
    PREDICTOR_LAYERS,
    ROI_CONTEXT,
    ROI_CORNERS,
    backbone_layers,
    head_layers,
)

# What these give is compared, decoded or summed up; bfloat16 has 8 significant bits.
_FLOAT32_NAMES = {ROI_CORNERS, ROI_CONTEXT, *PREDICTOR_LAYERS, BOX_BY_CLASS, BOX_DELTAS}
# Colours 0..255 with fractions would lose them.
_FLOAT32_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)
# What takes each number a few times only. In half types TensorFlow's code for CPUs needs twice as long for these, and
# up to 15 times for the gradients of depthwise convolutions: EfficientNet-Lite0 would train at half the speed.
_FLOAT32_LAYERS_ON_CPU = (
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.DepthwiseConv2D,
    keras.layers.ReLU,
)


def set_precision(model: keras.Model, dtype: str) -> None:
    """Makes the convolutions and the fully connected layers of a Fast R-CNN model compute in `dtype`.

    Where there is no GPU, layers between them that gain nothing by it stay in float32, depthwise convolutions too.
    Keras's global policy is left alone: it would reach layers that are made elsewhere, and not those of a network that
    was made before.

    Args:
        model: what `fast_rcnn` returned; already traced functions keep the types that they were traced with.
        dtype: name of a Keras dtype policy: "float32", "mixed_bfloat16", "mixed_float16".
    """
    for layer in _half_type_layers(model):
        layer.dtype_policy = keras.DTypePolicy(dtype)


@contextlib.contextmanager
def in_precision(model: keras.Model, dtype: str) -> Iterator[keras.Model]:
    """The model with its layers at another precision (see `set_precision`), for as long as the context lasts."""
    policies = [(layer, layer.dtype_policy) for layer in _half_type_layers(model)]
    set_precision(model, dtype)
    try:
        yield model
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def _half_type_layers(model):
    """The layers of the convolutions and all after them, in order, without those that stay float32."""
    whole = _FLOAT32_LAYERS if tf.config.list_physical_devices("GPU") else _FLOAT32_LAYERS + _FLOAT32_LAYERS_ON_CPU
    # What stands before the convolutions is preprocessing.
    for layer in (*backbone_layers(model), *head_layers(model)):
        if layer.name not in _FLOAT32_NAMES and not isinstance(layer, whole):
            yield layer
