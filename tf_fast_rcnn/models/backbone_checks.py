"""Checks, before any training, that a detector can be built from a classification network; each error is one line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.pretrained import freeze_normalization, parts_of

# Layers that change the size of images, so that RoIs would no longer fit them.
_RESIZING = (keras.layers.Resizing, keras.layers.CenterCrop, keras.layers.RandomCrop)
# Layers that augment images in training and leave them unchanged in detection. RandomCrop changes them in both.
_NAMES = ("AugMix", "CutMix", "Equalization", "MixUp", "RandAugment", "Solarization")
_AUGMENTATION = tuple(
    layer for name, layer in vars(keras.layers).items() if name.startswith("Random") or name in _NAMES
)
_SIDES = (512, 1024)


def check_network(network: keras.Model, channels: int | None) -> None:
    """Raises InputError if a network is not a graph from one image to one output, or expects another image layout.

    Args:
        network: the network that the caller passed.
        channels: the number of channels of the preprocessed images.
    """
    check_is_graph(network)
    for layer in parts_of(network):
        if getattr(layer, "data_format", None) == "channels_first":
            raise InputError(
                f"backbone: found {layer.name} with data_format 'channels_first'; expected 'channels_last', images of "
                "[height, width, channels]; build the network with it (keras.json may set another default)"
            )
    if len(network.outputs) > 1:
        raise InputError(
            f"backbone: found {len(network.outputs)} outputs in {network.name}; expected one, the class scores; choose "
            "one with keras.Model(network.inputs, network.outputs[0])"
        )
    shape = network.inputs[0].shape
    if len(shape) != 4 or shape[-1] not in (channels, None):
        raise InputError(
            f"backbone: found input shape {tuple(shape)} in {network.name}; expected images of {channels} channels, "
            f"(None, height, width, {channels}); for grey or other images, pass a `preprocessing` layer that converts "
            "RGB 0..255"
        )


def check_is_graph(network: keras.Model) -> None:
    """Raises InputError if a network is not a functional or sequential model with one input."""
    if not isinstance(network, keras.Model) or len(getattr(network, "inputs", None) or ()) != 1:
        raise InputError(
            f"backbone: found {type(network).__name__} without one image input; expected a functional or sequential "
            "Keras model; build it with keras.Model(inputs, outputs)"
        )


def check_preprocessing(layer: keras.layers.Layer, preprocessed: keras.KerasTensor) -> None:
    """Raises InputError if a preprocessing layer moves or resizes images, or cannot be saved."""
    for part in parts_of(layer):
        if is_augmentation(part) or isinstance(part, (*_RESIZING, keras.layers.Lambda)):
            raise InputError(
                f"preprocessing: found {part.name} ({type(part).__name__}); expected a layer that changes only the "
                "values of pixels and can be saved, such as Rescaling; augmentation is part of the mini-batches"
            )
    if tuple(preprocessed.shape[1:3]) != (None, None):
        raise InputError(
            f"preprocessing: found {type(layer).__name__} with outputs of shape {tuple(preprocessed.shape)}; expected "
            "images of the size that goes in, (None, None, None, channels); leave resizing out"
        )


def is_augmentation(layer: keras.layers.Layer) -> bool:
    """Whether a Keras layer augments images in training and leaves them unchanged in detection.

    Example:
        >>> is_augmentation(keras.layers.RandomFlip()), is_augmentation(keras.layers.Rescaling(2.0))
        (True, False)
    """
    return isinstance(layer, _AUGMENTATION) and not isinstance(layer, _RESIZING)


def check_layer(layer: keras.layers.Layer, network: str) -> None:
    """Raises InputError if a layer resizes images or turns them into sequences, or if augmentation is inside it.

    Args:
        layer: a layer of the network that the caller passed.
        network: the name of the network.
    """
    ranks = {(len(node.input_tensors[0].shape), len(node.outputs[0].shape)) for node in layer._inbound_nodes}
    if layer.weights and (4, 3) in ranks:
        raise is_transformer(network)
    for part in parts_of(layer):
        if isinstance(part, _RESIZING):
            raise InputError(
                f"backbone: found {part.name} ({type(part).__name__}), which changes the size of images and not "
                "of RoIs; expected a network without it; build the model from the layers after it"
            )
        if part is not layer and is_augmentation(part):
            raise InputError(
                f"backbone: found {part.name} ({type(part).__name__}) inside {layer.name}, which moves images and not "
                "RoIs; expected augmentation in the mini-batches only; build the model without it"
            )


def check_copy(network: keras.Model, copy: keras.Model) -> None:
    """Raises InputError if a copy of a network does not compute the same, or if training passes do what they must not.

    The check computes with random images. Networks of Keras's own layers need none of it.

    Args:
        network: the network that the caller passed.
        copy: made of copies of its layers, with their weights; its batch normalisation is frozen by this function.
    """
    freeze_normalization(copy)
    foreign = [layer for layer in copy.layers if type(layer).__module__.partition(".")[0] != "keras"]
    others = [layer for layer in copy.layers if _keeps_statistics(layer)]
    if not foreign and not others:
        return
    images = np.random.default_rng(0).uniform(0, 255, (2, *copy.input.shape[1:])).astype(np.float32)
    if foreign:
        _check_same_outputs(network, copy, images, foreign)
        _check_not_random(copy, images)
    if others:
        _check_statistics(copy, images, others)


def _check_same_outputs(network, copy, images, foreign):
    # The same with one tensor in and out, however the caller's model names them.
    models = [keras.Model(model.inputs[0], model.outputs[0]) for model in (network, copy)]
    expected, found = (np.asarray(model(images, training=False)) for model in models)
    if not np.allclose(expected, found, rtol=1e-2, atol=1e-3 * np.abs(expected).max()):
        names = ", ".join(dict.fromkeys(type(layer).__name__ for layer in foreign))
        raise InputError(
            f"backbone: found that a copy of {network.name} computes something else (own layers: {names}); expected "
            "layers whose get_config() has all their settings; complete it"
        )


def _check_not_random(copy, images):
    """Layers of other packages before the first weights must not vary images at random."""
    for layer in copy.layers:
        if layer.weights:
            return
        if type(layer).__module__.partition(".")[0] == "keras":
            continue
        before = keras.Model(copy.input, layer.output)
        expected = np.asarray(before(images, training=False))
        if any(not np.array_equal(np.asarray(before(images, training=True)), expected) for _ in range(8)):
            raise InputError(
                f"backbone: found {layer.name} ({type(layer).__name__}), which varies images at random in training "
                "and not their RoIs; expected augmentation in the mini-batches only; build the model without it"
            )


def _keeps_statistics(layer):
    """Whether a layer that is neither batch normalisation nor normalisation by constants has weights that gradients do
    not train: they may be statistics."""
    known = (keras.layers.BatchNormalization, keras.layers.Normalization)
    return any(part._non_trainable_variables and not isinstance(part, known) for part in parts_of(layer))


def _check_statistics(copy, images, layers):
    before = [layer.get_weights() for layer in layers]
    copy(images, training=True)
    for layer, weights in zip(layers, before, strict=True):
        if any(not np.array_equal(*pair) for pair in zip(weights, layer.get_weights(), strict=True)):
            raise InputError(
                f"backbone: found {layer.name} ({type(layer).__name__}), whose weights change in every training pass; "
                "expected statistics that can be frozen, as in BatchNormalization; replace the layer"
            )


def check_any_image_size(convolutions: keras.Model, strides: Sequence[int], name: str) -> None:
    """Raises InputError if the feature maps do not grow with the images, in both directions.

    Args:
        convolutions: model that accepts images of any size.
        strides: image pixels per cell of each of its outputs.
        name: of the network, for the message.
    """
    images = keras.Input((*_SIDES, convolutions.input.shape[-1]))
    try:
        maps = keras.tree.flatten(convolutions(images))
    except Exception as error:  # The code of any layer may raise any error.
        raise no_other_size(name, error) from error
    for stride, feature_map in zip(strides, maps, strict=True):
        cells = feature_map.shape[1:3]
        if None in cells or any(round(math.log2(side / n / stride)) for side, n in zip(_SIDES, cells, strict=True)):
            raise no_other_size(name, f"{_SIDES[0]}x{_SIDES[1]} pixels become {cells[0]}x{cells[1]} cells")


def no_other_size(name: str, reason: object) -> InputError:
    """The InputError for a network that works only for images of one size."""
    return InputError(
        f"backbone: found {name}, whose feature maps do not follow the size of the images "
        f"({str(reason).strip().splitlines()[0][:200]}); expected convolutions at any image size, without resizing; "
        "build the network from the layers between"
    )


def is_transformer(name: str) -> InputError:
    """The InputError for a network that processes sequences of patches."""
    return InputError(
        f"backbone: found {name}, which processes images as sequences of patches, as vision transformers do; expected "
        "a convolutional network, whose feature maps RoIs are pooled from; choose another"
    )
