"""The paper's three networks as Caffe computes them: S (CaffeNet), M (VGG_CNN_M_1024) and L (VGG16).

Layers, names and sizes are those of the released models (rbgirshick/fast-rcnn, models/*/train.prototxt). The layers
after `pool5` are those of the ImageNet networks that the weights come from:

- S: Y. Jia's CaffeNet, a variant of A. Krizhevsky et al. (2012) with pooling before normalisation;
- M: K. Chatfield et al., "Return of the devil in the details" (BMVC 2014), CNN-M with an fc7 of 1024;
- L: K. Simonyan, A. Zisserman, "Very deep convolutional networks" (ICLR 2015), configuration D.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.caffe_layers import CaffeMaxPooling2D, LocalResponseNormalization
from tf_fast_rcnn.models.backbones.caffe_weights import load_caffe_layers
from tf_fast_rcnn.models.backbones.caffemodel import read_caffemodel
from tf_fast_rcnn.models.backbones.keras_applications import build_application, keras_applications
from tf_fast_rcnn.models.backbones.keras_weights import load_keras_weights
from tf_fast_rcnn.models.backbones.preprocessing import Preprocessing

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# Blue, green, red (PIXEL_MEANS of the released system), for all three networks.
_MEAN_BGR = (102.9801, 115.9465, 122.7717)

_CLASSES = 1000
_DROPOUT = 0.5


def caffenet(
    weights: StrPath | None = None,
    *,
    aligned: bool = True,
    width: float = 1.0,
    fc_ranks: Mapping[str, int] | None = None,
) -> keras.Model:
    """S: five convolutions, three of them in two groups; 61 million parameters.

    Args:
        weights: see `caffe_vgg16`; "imagenet" is not available.
        aligned: True for the Fast R-CNN network, which pads conv1, pool1 and pool2 so that cell `i` of conv5 is centred
            at pixel `16 * i`. False for the ImageNet network without this padding, for images of 227x227. Both use the
            same weights.
        width, fc_ranks: see `caffe_vgg16`.

    Returns:
        `keras.Model`: images preprocessed by `caffe_preprocessing()` to class probabilities `[B, 1000]`.

    Example:
        >>> caffenet(width=1 / 16).get_layer("conv5").output.shape
        (None, 13, 13, 16)
    """
    pad = 1 if aligned else 0
    convolutions = [
        *_convolution("conv1", 96, 11, width, stride=4, pad=5 * pad),
        CaffeMaxPooling2D(3, 2, pad=pad, name="pool1"),
        LocalResponseNormalization(5, alpha=1e-4, beta=0.75, name="norm1"),
        *_convolution("conv2", 256, 5, width, pad=2, groups=2),
        CaffeMaxPooling2D(3, 2, pad=pad, name="pool2"),
        LocalResponseNormalization(5, alpha=1e-4, beta=0.75, name="norm2"),
        *_convolution("conv3", 384, 3, width, pad=1),
        *_convolution("conv4", 384, 3, width, pad=1, groups=2),
        *_convolution("conv5", 256, 3, width, pad=1, groups=2),
        CaffeMaxPooling2D(3, 2, name="pool5"),
    ]
    # conv5 has 13x13 cells in the aligned network at 193 pixels and in the other at 227 pixels, so fc6 fits both.
    side = 193 if aligned else 227
    network = _network("caffenet", side, convolutions, _fc_layers((4096, 4096), width, fc_ranks))
    return _with_weights(network, weights)


def vgg_cnn_m_1024(
    weights: StrPath | None = None, *, width: float = 1.0, fc_ranks: Mapping[str, int] | None = None
) -> keras.Model:
    """M: as deep as S but wider, with 1024 units in fc7; 87 million parameters. Arguments and result as `caffe_vgg16`.

    Example:
        >>> vgg_cnn_m_1024(width=1 / 16).get_layer("conv5").output.shape
        (None, 13, 13, 32)
    """
    convolutions = [
        *_convolution("conv1", 96, 7, width, stride=2),
        LocalResponseNormalization(5, alpha=5e-4, beta=0.75, k=2.0, name="norm1"),
        CaffeMaxPooling2D(3, 2, name="pool1"),
        *_convolution("conv2", 256, 5, width, stride=2, pad=1),
        LocalResponseNormalization(5, alpha=5e-4, beta=0.75, k=2.0, name="norm2"),
        CaffeMaxPooling2D(3, 2, name="pool2"),
        *_convolution("conv3", 512, 3, width, pad=1),
        *_convolution("conv4", 512, 3, width, pad=1),
        *_convolution("conv5", 512, 3, width, pad=1),
        CaffeMaxPooling2D(3, 2, name="pool5"),
    ]
    network = _network("vgg_cnn_m_1024", 224, convolutions, _fc_layers((4096, 1024), width, fc_ranks))
    return _with_weights(network, weights)


def caffe_vgg16(
    weights: StrPath | None = None, *, width: float = 1.0, fc_ranks: Mapping[str, int] | None = None
) -> keras.Model:
    """L: thirteen convolutions; 138 million parameters.

    Unlike the VGG16 of keras.applications, its pooling rounds sizes up: at 600x1000 pixels conv5_3 has 38x63 cells
    instead of 37x62.

    Args:
        weights: "imagenet" (Keras downloads its copy of the published weights), None for random weights, or a file:
            `.caffemodel` (an ImageNet network, or a trained detector, from which all but the last layers are used), or
            Keras's `.weights.h5`, `.h5` or `.keras`.
        width: factor for the published numbers of channels and units, for cheap experiments.
        fc_ranks: dict from "fc6" or "fc7" to its number t of singular values: NAME_L (t units, no bias) and NAME_U
            replace layer NAME (section 3.1 of the paper, "Truncated SVD for faster detection").

    Returns:
        `keras.Model`: images preprocessed by `caffe_preprocessing()` to class probabilities `[B, 1000]`.

    Raises:
        InputError: if the weights are not available or do not fit.

    Example:
        >>> caffe_vgg16(width=1 / 16).get_layer("conv5_3").output.shape
        (None, 14, 14, 32)
    """
    convolutions = []
    for stage, (depth, channels) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for number in range(1, depth + 1):
            convolutions += _convolution(f"conv{stage}_{number}", channels, 3, width, pad=1)
        # For windows of 2 that do not overlap, Keras's "same" pads like Caffe, and does not copy the largest maps.
        convolutions.append(keras.layers.MaxPooling2D(2, 2, padding="same", name=f"pool{stage}"))
    network = _network("caffe_vgg16", 224, convolutions, _fc_layers((4096, 4096), width, fc_ranks))
    if weights == "imagenet":
        network.set_weights(build_application(keras_applications()["VGG16"], weights).get_weights())
        return network
    return _with_weights(network, weights)


# Constructors by backbone name.
CAFFE_NETWORKS = {"caffenet": caffenet, "vgg_cnn_m_1024": vgg_cnn_m_1024, "caffe_vgg16": caffe_vgg16}


def caffe_preprocessing() -> Preprocessing:
    """BGR minus the mean pixel that the released system uses for all three networks."""
    return Preprocessing("bgr", mean=_MEAN_BGR, name="preprocessing")


def _convolution(name, filters, kernel, width, stride=1, pad=0, groups=1):
    """A convolution with ReLU, after explicit zero padding if Keras's padding would differ from Caffe's."""
    symmetric = stride == 1 and kernel == 2 * pad + 1
    padding = [] if symmetric or not pad else [keras.layers.ZeroPadding2D(pad, name=f"{name}_pad")]
    return [
        *padding,
        keras.layers.Conv2D(
            _scaled(filters, width),
            kernel,
            stride,
            padding="same" if symmetric else "valid",
            groups=groups,
            activation="relu",
            kernel_initializer="he_uniform",
            name=name,
        ),
    ]


def _fc_layers(units, width, fc_ranks):
    """fc6 and fc7, each with ReLU and dropout; a layer with a rank is split in two."""
    layers = []
    for name, dropout, number in zip(("fc6", "fc7"), ("drop6", "drop7"), units, strict=True):
        rank = (fc_ranks or {}).get(name)
        if rank is not None:
            layers.append(keras.layers.Dense(rank, use_bias=False, kernel_initializer="he_uniform", name=f"{name}_L"))
        layers += [
            keras.layers.Dense(
                _scaled(number, width),
                "relu",
                kernel_initializer="he_uniform",
                name=name if rank is None else f"{name}_U",
            ),
            keras.layers.Dropout(_DROPOUT, name=dropout),
        ]
    return layers


def _scaled(number, width):
    """An even number, since convolutions in two groups divide it."""
    return max(2, 2 * round(width * number / 2))


def _network(name, side, convolutions, fc_layers):
    images = keras.Input((side, side, 3), name="images")
    classifier = keras.layers.Dense(_CLASSES, activation="softmax", dtype="float32", name="fc8")
    x = images
    for layer in [*convolutions, keras.layers.Flatten(name="flatten"), *fc_layers, classifier]:
        x = layer(x)
    return keras.Model(images, x, name=name)


def _with_weights(network, weights):
    if weights == "imagenet":
        raise InputError(
            f"{network.name}: found no ImageNet weights to download; expected a weights file; pass its .caffemodel "
            "(--weights FILE), or use random weights (weights=None)"
        )
    if weights is not None and os.fspath(weights).endswith(".caffemodel"):
        load_caffe_layers(network, read_caffemodel(weights))
    elif weights is not None:
        load_keras_weights(network, weights)
    return network
