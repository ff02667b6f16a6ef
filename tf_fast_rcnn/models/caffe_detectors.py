"""Loads detectors that were trained with the original Caffe system as models of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.caffe import CAFFE_NETWORKS, caffe_preprocessing
from tf_fast_rcnn.models.backbones.caffe_weights import load_caffe_layers, predictor_weights
from tf_fast_rcnn.models.backbones.caffemodel import read_caffemodel
from tf_fast_rcnn.models.fast_rcnn import fast_rcnn
from tf_fast_rcnn.models.parts import backbone_of, class_layer, denormalization_layer, regression_layer

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.models.backbones.caffemodel import CaffeModel

_PREDICTORS = ("cls_score", "bbox_pred")


def is_caffe_detector(caffe_model: CaffeModel) -> bool:
    """Whether a `CaffeModel` is a trained detector rather than an ImageNet network.

    Example:
        >>> is_caffe_detector(read_caffemodel("VGG16.v2.caffemodel"))           # doctest: +SKIP
        False
    """
    return any(name in caffe_model.layers for name in _PREDICTORS)


def load_caffe_detector(path: StrPath, network: str, roi_pooling: str = "auto") -> keras.Model:
    """Loads a trained Fast R-CNN network from its `.caffemodel`, as a model like those of `fast_rcnn`.

    Networks that the original system compressed by truncated SVD (layers fc6_L, fc6_U, fc7_L, fc7_U instead of fc6,
    fc7) stay compressed. The class logits are the original `cls_score`; the box deltas are the original `bbox_pred` in
    the order `(ty, tx, th, tw)`, without those of the background. RoIs, pooling and preprocessing are also those of the
    original.

    The original computes a width as `x2 - x1` although its boxes include pixel x2, so its widths are one pixel smaller
    than ours. Box regression moves an edge by at most `|tx| + |exp(tw) - 1| / 2` image pixels more or less than there.

    Args:
        path: the file.
        network: "caffenet", "vgg_cnn_m_1024" or "caffe_vgg16"; or a function with the same arguments that returns such
            a network.
        roi_pooling: "native", "portable" or "auto" (see `RoIPooling`).

    Returns:
        `keras.Model`, see `fast_rcnn`.

    Raises:
        InputError: if the file is not a `.caffemodel`, or contains a different network.

    Example:
        >>> model = load_caffe_detector("vgg16_fast_rcnn_iter_40000.caffemodel", "caffe_vgg16")    # doctest: +SKIP
        >>> model.output["box_deltas"].shape                                                       # doctest: +SKIP
        (None, None, 20, 4)
    """
    caffe_model = read_caffemodel(path)
    make_network = CAFFE_NETWORKS.get(network, network)
    if not callable(make_network):
        raise InputError(
            f"network: found {network!r}; expected one of {', '.join(CAFFE_NETWORKS)}; choose one of these"
        )
    backbone = make_network(fc_ranks=_ranks(caffe_model))
    load_caffe_layers(backbone, caffe_model)
    (scores, score_bias), (regression, regression_bias) = predictor_weights(caffe_model, _fc7_units(backbone))
    model = fast_rcnn(backbone, regression.shape[1], preprocessing=caffe_preprocessing(), roi_pooling=roi_pooling)
    class_layer(model).set_weights([scores, score_bias])
    # The model multiplies by the default standard deviation of the targets, so that it can be trained further.
    statistics = denormalization_layer(model)
    regression = regression / statistics.std
    regression_bias = (regression_bias - statistics.mean) / statistics.std
    regression_layer(model).set_weights([regression.reshape(len(regression), -1), regression_bias.ravel()])
    return model


def unread_layers(caffe_model: CaffeModel, model: keras.Model) -> list[str]:
    """Names of the layers with weights that are in the file but not in the detector made from it.

    A file has such layers if the detector is part of a larger network, for example Faster R-CNN.
    """
    read = {layer.name for part in (model, backbone_of(model)) for layer in part.layers}
    return [name for name in caffe_model.layers if name not in read.union(_PREDICTORS)]


def _ranks(caffe_model):
    """The number of singular values of fc6 and fc7, if they are compressed in the file."""
    firsts = {name: caffe_model.layers.get(f"{name}_L") for name in ("fc6", "fc7")}
    return {name: _rows(blobs[0]) for name, blobs in firsts.items() if blobs}


def _rows(blob):
    """The number of outputs of a fully connected layer; in old files its weights are `[1, 1, out, in]`."""
    return blob.shape[-2] if blob.ndim > 1 else 1


def _fc7_units(backbone):
    return [layer.units for layer in backbone.layers if isinstance(layer, keras.layers.Dense)][-2]
