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

# The outputs of these layers are compared, decoded or summed; bfloat16 has only 8 significant bits.
_FLOAT32_NAMES = {ROI_CORNERS, ROI_CONTEXT, *PREDICTOR_LAYERS, BOX_BY_CLASS, BOX_DELTAS}
# Colours 0..255 would lose their fractions.
_FLOAT32_LAYERS = (keras.layers.Rescaling, keras.layers.Normalization)
# Layers with few operations per number. On CPUs, TensorFlow takes twice as long for these in half types, and up to 15
# times as long for the gradients of depthwise convolutions: EfficientNet-Lite0 would train at half the speed.
_FLOAT32_LAYERS_ON_CPU = (
    keras.layers.Add,
    keras.layers.BatchNormalization,
    keras.layers.DepthwiseConv2D,
    keras.layers.ReLU,
)


def set_precision(model: keras.Model, dtype: str) -> None:
    """Sets the dtype in which the convolutions and the fully connected layers of a Fast R-CNN model compute.

    Without a GPU, layers that would not become faster stay in float32, including depthwise convolutions. Keras's global
    policy is not changed: it would affect unrelated layers, but not those of a model that already exists.

    Args:
        model: a model made by `fast_rcnn`. Functions that are already traced keep their dtypes.
        dtype: name of a Keras dtype policy: "float32", "mixed_bfloat16", "mixed_float16".
    """
    for layer in _half_type_layers(model):
        layer.dtype_policy = keras.DTypePolicy(dtype)


@contextlib.contextmanager
def in_precision(model: keras.Model, dtype: str) -> Iterator[keras.Model]:
    """Gives the model another precision (see `set_precision`) within the context."""
    policies = [(layer, layer.dtype_policy) for layer in _half_type_layers(model)]
    set_precision(model, dtype)
    try:
        yield model
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def _half_type_layers(model):
    """The layers of the backbone and the head, in order, except those that stay in float32."""
    whole = _FLOAT32_LAYERS if tf.config.list_physical_devices("GPU") else _FLOAT32_LAYERS + _FLOAT32_LAYERS_ON_CPU
    # The layers before the backbone are preprocessing.
    for layer in (*backbone_layers(model), *head_layers(model)):
        if layer.name not in _FLOAT32_NAMES and not isinstance(layer, whole):
            yield layer
