"""Classification networks that Fast R-CNN detectors are built from, each with its preprocessing."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, NamedTuple

import keras

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.caffe import CAFFE_NETWORKS, caffe_preprocessing
from tf_fast_rcnn.models.backbones.efficientnet_lite import efficientnet_lite0, lite_preprocessing
from tf_fast_rcnn.models.backbones.keras_applications import build_application, keras_applications
from tf_fast_rcnn.models.backbones.preprocessing import Preprocessing, preprocessing_from_function

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

__all__ = ["Backbone", "Preprocessing", "backbone_names", "load_backbone"]

_LITE0 = "efficientnet_lite0"
# Networks that end in fully connected layers, which a detector reuses by default: see `fast_rcnn`.
WITH_FULLY_CONNECTED_LAYERS = frozenset({*CAFFE_NETWORKS, "vgg16", "vgg19"})


class Backbone(NamedTuple):
    """A classification network and its preprocessing.

    Attributes:
        name: "vgg16", "efficientnet_lite0", ..., or the name of the user's model.
        network: `keras.Model` from preprocessed images `[B, H, W, 3]` to class probabilities or logits, including its
            classification layers. Its input size may be fixed, as in VGG16 (224).
        preprocessing: Keras layer from float32 `[B, H, W, 3]`, RGB 0..255, to the network's input.
    """

    name: str
    network: keras.Model
    preprocessing: keras.layers.Layer


def backbone_names() -> list[str]:
    """The names that `load_backbone` accepts: first this package's networks, then those of keras.applications.

    Example:
        >>> backbone_names()[:2]
        ['efficientnet_lite0', 'caffenet']
    """
    return [_LITE0, *CAFFE_NETWORKS, *sorted(keras_applications())]


def load_backbone(
    backbone: str | keras.Model, weights: StrPath | None = "imagenet", preprocessing: keras.layers.Layer | None = None
) -> Backbone:
    """Loads a classification network by name, or takes your own, together with its preprocessing.

    Args:
        backbone: "efficientnet_lite0"; the paper's "caffenet", "vgg_cnn_m_1024" or "caffe_vgg16"; any network of
            keras.applications (case, "_" and "-" are ignored: "mobilenet_v2" is "MobileNetV2"); or a `keras.Model`,
            which is used as it is.
        weights: for a network given by name: "imagenet", None for random weights, or the path of a weights file
            (`.weights.h5`, `.h5`, `.keras`; for efficientnet_lite0 also `.pth`, for the paper's three also
            `.caffemodel`). A `keras.Model` keeps its weights.
        preprocessing: layer from float32 `[B, H, W, 3]`, RGB 0..255, to the network's input. None: the preprocessing
            of a named network; for a `keras.Model` the identity, so that its input is RGB 0..255.

    Returns:
        `Backbone`.

    Raises:
        InputError: if the name is unknown, or the weights are not available or do not fit.

    Example:
        >>> load_backbone("vgg16", weights=None).preprocessing.channel_order
        'bgr'
    """
    if isinstance(backbone, keras.Model):
        return _own_network(backbone, weights, preprocessing)
    name = check_backbone(backbone, weights)
    if name == _LITE0:
        network, own_preprocessing = efficientnet_lite0(weights), lite_preprocessing()
    elif name in CAFFE_NETWORKS:
        network, own_preprocessing = CAFFE_NETWORKS[name](weights), caffe_preprocessing()
    else:
        application = keras_applications()[name]
        network = build_application(application, weights)
        own_preprocessing = preprocessing_from_function(application.preprocess_input)
    return Backbone(name.lower(), network, own_preprocessing if preprocessing is None else preprocessing)


def check_backbone(backbone: str, weights: StrPath | None) -> str:
    """The canonical name of a backbone; raises InputError if it is unknown or if the weights file does not exist."""
    name = _resolve(backbone)
    if weights not in (None, "imagenet") and not os.path.isfile(weights):
        raise InputError(
            f"weights: found {os.fspath(weights)!r}, which is not a file; expected 'imagenet', None or the path of a "
            "weights file; check the path"
        )
    return name


def _own_network(network, weights, preprocessing):
    if weights not in (None, "imagenet"):
        raise InputError(
            f"weights: found {os.fspath(weights)!r} with a keras.Model; expected no file, since the model has its own "
            "weights; call model.load_weights first"
        )
    return Backbone(
        network.name, network, Preprocessing(name="preprocessing") if preprocessing is None else preprocessing
    )


def _resolve(name):
    """The canonical name of a backbone, from any spelling of it."""
    known = {_spelling(known_name): known_name for known_name in backbone_names()}
    if not isinstance(name, str) or _spelling(name) not in known:
        close = difflib.get_close_matches(_spelling(str(name)), known, n=5)
        names = [known[spelling] for spelling in close + [other for other in known if other not in close]]
        raise InputError(f"backbone: found {name!r}; expected one of {', '.join(names)}; or pass a keras.Model")
    return known[_spelling(name)]


def _spelling(name):
    return name.lower().replace("_", "").replace("-", "")
