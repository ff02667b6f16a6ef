"""Every classification network of keras.applications, with the preprocessing that its module prescribes."""

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

# What EfficientNetB0 to B7 keep as the variance of their input normalisation.
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Application(NamedTuple):
    """A network of keras.applications: its constructor and its module's `preprocess_input`."""

    name: str
    construct: Callable
    preprocess_input: Callable


def keras_applications() -> dict[str, Application]:
    """The networks that the installed Keras has, by Keras's names.

    Returns:
        dict from name to `Application`.

    Example:
        >>> "MobileNetV2" in keras_applications()
        True
    """
    constructors = {name: value for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    # The module that defines a constructor has its preprocess_input; the public one of MobileNetV3 has no constructor.
    return {
        name: Application(name, construct, sys.modules[construct.__module__].preprocess_input)
        for name, construct in constructors.items()
    }


def build_application(application: Application, weights: StrPath | None) -> keras.Model:
    """Constructs a network with its classification layers, at its default input size.

    Args:
        application: an `Application`.
        weights: "imagenet" (Keras downloads them), None for random ones, or a file: see `load_keras_weights`.

    Returns:
        `keras.Model`: images after `application.preprocess_input` to class probabilities `[B, 1000]`.

    Raises:
        InputError: the download failed, or the file does not fit.
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
    except Exception as error:  # Keras raises a bare Exception where a download fails.
        raise InputError(
            f"{application.name}: found no ImageNet weights ({first_line(error)}); expected Keras to download them; "
            "check the connection, or give a weights file (--weights FILE), or none (weights=None)"
        ) from error


def _apply_missing_rescaling(network):
    """Gives EfficientNetB0 to B7 the normalisation that their ImageNet weights were trained with.

    Their files hold the deviation where the variance should be, and Keras adds a layer that divides by the square
    root of the deviation once more, but only where it downloads the file itself. Given the same file by path, the
    network would see images of half the contrast; with the deviation squared it sees the right ones.
    """
    for layer in network.layers:
        if not isinstance(layer, keras.layers.Normalization) or layer.input_mean is not None:
            continue
        deviation = keras.ops.convert_to_numpy(layer.adapt_variance)
        if np.allclose(deviation, _IMAGENET_DEVIATION, atol=1e-3):
            layer.adapt_variance.assign(deviation**2)
            layer.finalize_state()
