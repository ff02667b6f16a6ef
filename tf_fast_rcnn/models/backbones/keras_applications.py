"""All classification networks of keras.applications, each with the preprocessing of its module."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.keras_weights import first_line, load_keras_weights

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# What EfficientNetB0 to B7 store as the variance of their input normalisation.
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Application(NamedTuple):
    """A network of keras.applications: its constructor and the `preprocess_input` of its module."""

    name: str
    construct: Callable
    preprocess_input: Callable


def keras_applications() -> dict[str, Application]:
    """The networks of the installed Keras version, by their names in Keras.

    Returns:
        dict from name to `Application`.

    Example:
        >>> "MobileNetV2" in keras_applications()
        True
    """
    constructors = {name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    # preprocess_input comes from the module that defines the constructor; for MobileNetV3 the public module lacks it.
    return {
        name: Application(name, construct, sys.modules[construct.__module__].preprocess_input)
        for name, construct in constructors.items()
    }


def build_application(application: Application, weights: StrPath | None) -> keras.Model:
    """Constructs a network with its classification layers, at its default input size.

    Args:
        application: an `Application`.
        weights: "imagenet" (downloaded by Keras), None for random weights, or a file: see `load_keras_weights`.

    Returns:
        `keras.Model`: images preprocessed by `application.preprocess_input` to class probabilities `[B, 1000]`.

    Raises:
        InputError: if the download fails, or the file does not fit.
    """
    if weights == "imagenet":
        return _download(application)
    network = application.construct(weights=None, include_top=True)
    if weights is not None:
        load_keras_weights(network, weights)
        _apply_missing_rescaling(network)
    return network


def _download(application):
    try:
        return application.construct(weights="imagenet", include_top=True)
    except Exception as error:  # Keras raises a bare Exception if a download fails.
        raise InputError(
            f"{application.name}: found no ImageNet weights ({first_line(error)}); expected Keras to download them; "
            "check the connection, pass a weights file (--weights FILE), or use random weights (weights=None)"
        ) from error


def _apply_missing_rescaling(network):
    """Restores the normalisation that the ImageNet weights of EfficientNetB0 to B7 were trained with.

    Their files contain the standard deviation instead of the variance. Keras compensates with a layer that divides by
    the square root of the standard deviation once more, but only if it downloads the file itself. If the same file is
    loaded by its path, the network would receive images with half the contrast; squaring the stored value fixes this.
    """
    for layer in network.layers:
        if not isinstance(layer, keras.layers.Normalization) or layer.input_mean is not None:
            continue
        deviation = keras.ops.convert_to_numpy(layer.adapt_variance)
        if np.allclose(deviation, _IMAGENET_DEVIATION, atol=1e-3):
            layer.adapt_variance.assign(deviation**2)
            layer.finalize_state()
