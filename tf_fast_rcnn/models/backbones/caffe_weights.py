"""Loads the weights of a `.caffemodel` into Keras layers: layer names, axis order, and the flattening before fc6."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.models.backbones.caffemodel import CaffeModel

_CLASSIFIER = "fc8"
_AFTER_FLATTEN = ("fc6", "fc6_L")


def load_caffe_layers(network: keras.Model, caffe_model: CaffeModel) -> None:
    """Loads the weights of a network of `caffe.py` from the layers with the same names in a file, in place.

    The ImageNet classifier keeps its weights if the file has none for it, as in trained detectors, which do not use it.

    Args:
        network: a network made by `caffenet`, `vgg_cnn_m_1024` or `caffe_vgg16`.
        caffe_model: `CaffeModel`.

    Raises:
        InputError: if the file lacks a layer of the network, or has it with another shape.
    """
    for layer in network.layers:
        if not layer.weights or (layer.name == _CLASSIFIER and _CLASSIFIER not in caffe_model.layers):
            continue
        values = caffe_model.blobs(layer.name, _caffe_shapes(layer))
        if isinstance(layer, keras.layers.Conv2D):
            # OIHW to HWIO. In grouped convolutions, both formats store the outputs group by group.
            kernel = np.transpose(values[0], (2, 3, 1, 0))
        elif layer.name in _AFTER_FLATTEN:
            kernel = _dense_after_flatten(values[0], network.get_layer("flatten").input.shape[1:])
        else:
            kernel = values[0].T
        layer.set_weights([kernel, *values[1:]])


def predictor_weights(
    caffe_model: CaffeModel, inputs: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The weights of a trained detector's two last layers, for `class_logits` and `box_regression`.

    Caffe's `bbox_pred` has four rows for each class, the background first: x, y, width, height. Snapshots contain
    un-normalised weights: the mean and the standard deviation of the targets are folded into them.

    Args:
        caffe_model: `CaffeModel`.
        inputs: the number of inputs of the layers, i.e. the units of fc7.

    Returns:
        `(kernel [inputs, K + 1], bias [K + 1])` of the scores, and `(kernel [inputs, K, 4], bias [K, 4])` of the
        un-normalised regression, `(ty, tx, th, tw)`.

    Raises:
        InputError: if the file lacks these layers, or has them with other shapes.
    """
    outputs = caffe_model.blobs("cls_score")[-1].size
    if outputs < 2:
        raise InputError(
            f"{caffe_model.path}: found a layer cls_score with {outputs} outputs; expected the background and at least "
            "one class; pass a trained Fast R-CNN network"
        )
    scores, score_bias = caffe_model.blobs("cls_score", [(outputs, inputs), (outputs,)])
    boxes, box_bias = caffe_model.blobs("bbox_pred", [(4 * outputs, inputs), (4 * outputs,)])
    yxhw = [1, 0, 3, 2]
    boxes = boxes.reshape(outputs, 4, inputs)[1:, yxhw]
    box_bias = box_bias.reshape(outputs, 4)[1:, yxhw]
    return (scores.T, score_bias), (np.transpose(boxes, (2, 0, 1)), box_bias)


def _caffe_shapes(layer):
    """The shapes of a layer's blobs in Caffe, where outputs come first."""
    kernel, *bias = [tuple(weight.shape) for weight in layer.weights]
    return [kernel[::-1] if len(kernel) == 2 else (kernel[3], kernel[2], *kernel[:2]), *bias]


def _dense_after_flatten(values, pooled_shape):
    """The kernel of a layer after flattening: Caffe flattens as channels, rows, columns; Keras as rows, columns,
    channels."""
    height, width, channels = pooled_shape
    kernel = np.transpose(values.reshape(-1, channels, height, width), (2, 3, 1, 0))
    return kernel.reshape(height * width * channels, -1)
