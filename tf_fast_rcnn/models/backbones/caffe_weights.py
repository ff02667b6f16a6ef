"""Puts the weights of a `.caffemodel` into Keras layers: names, orders of axes, and fc6's flattening."""

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
    """Loads a network of `caffe.py` from a file's layers of the same names, in place.

    The classifier keeps its weights where the file has none, as trained detectors; a detector does not use it.

    Args:
        network: what `caffenet`, `vgg_cnn_m_1024` or `caffe_vgg16` returned.
        caffe_model: `CaffeModel`.

    Raises:
        InputError: for a file without a layer of the network, or with one of another shape.
    """
    for layer in network.layers:
        if not layer.weights or (layer.name == _CLASSIFIER and _CLASSIFIER not in caffe_model.layers):
            continue
        values = caffe_model.blobs(layer.name, _caffe_shapes(layer))
        if isinstance(layer, keras.layers.Conv2D):
            # OIHW as HWIO; of a grouped convolution the outputs of one group follow those of another in both.
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

    Caffe's `bbox_pred` has four rows for each class, the background first: x, y, width, height. A snapshot's are
    un-normalised: the targets' mean and deviation are folded into them.

    Args:
        caffe_model: `CaffeModel`.
        inputs: values that the layers take, fc7's units.

    Returns:
        `(kernel [inputs, K + 1], bias [K + 1])` of the scores, and `(kernel [inputs, K, 4], bias [K, 4])` of the
        un-normalised regression, `(ty, tx, th, tw)`.

    Raises:
        InputError: where the file has no such layers, or of other shapes.
    """
    outputs = caffe_model.blobs("cls_score")[-1].size
    if outputs < 2:
        raise InputError(
            f"{caffe_model.path}: found a layer cls_score with {outputs} outputs; expected the background and at least "
            "one class; give a trained Fast R-CNN network"
        )
    scores, score_bias = caffe_model.blobs("cls_score", [(outputs, inputs), (outputs,)])
    boxes, box_bias = caffe_model.blobs("bbox_pred", [(4 * outputs, inputs), (4 * outputs,)])
    yxhw = [1, 0, 3, 2]
    boxes = boxes.reshape(outputs, 4, inputs)[1:, yxhw]
    box_bias = box_bias.reshape(outputs, 4)[1:, yxhw]
    return (scores.T, score_bias), (np.transpose(boxes, (2, 0, 1)), box_bias)


def _caffe_shapes(layer):
    """The shapes of a layer's blobs in Caffe: outputs come first."""
    kernel, *bias = [tuple(weight.shape) for weight in layer.weights]
    return [kernel[::-1] if len(kernel) == 2 else (kernel[3], kernel[2], *kernel[:2]), *bias]


def _dense_after_flatten(values, pooled_shape):
    """Caffe flattens a map as channels, rows, columns, Keras as rows, columns, channels."""
    height, width, channels = pooled_shape
    kernel = np.transpose(values.reshape(-1, channels, height, width), (2, 3, 1, 0))
    return kernel.reshape(height * width * channels, -1)
