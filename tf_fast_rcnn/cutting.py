"""Finds where a classification network is cut for RoI pooling: the first of the paper's three transformations.

Works on the graph of any functional or sequential Keras model, and not on a list of known networks.
"""

import collections
import math
from typing import NamedTuple

import keras

from tf_fast_rcnn.errors import InputError

# The image side at which a network with a free input size is laid out to read its strides.
_LAYOUT_SIDE = 224

_POOLINGS = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)


class Cut(NamedTuple):
    """A classification network cut in two at the place of RoI pooling.

    Attributes:
        convolutions: `keras.Model`, preprocessed images -> the last convolutional feature map.
        stride: pixels of the image per cell of that map.
        pooled_size: `(H, W)` of a pooled RoI.
        fc_layers: the network's fully connected layers (with their activations and dropout) without the last one,
            which classifies; empty where new ones have to be made.
    """

    convolutions: keras.Model
    stride: int
    pooled_size: tuple
    fc_layers: list


def cut_at_roi_pooling(network, stride=16, pooled_size=(7, 7)):
    """Cuts at the pooling that feeds the classifier; where there is none, at the last feature map of `stride`.

    Args:
        network: functional or sequential `keras.Model` from images to class scores; left as it is.
        stride, pooled_size: for networks without a pooling that feeds fully connected layers.

    Raises:
        InputError: where the network is no graph of layers, or has no feature map of `stride`.

    Example:
        >>> cut = cut_at_roi_pooling(keras.applications.VGG16(weights=None))
        >>> cut.stride, cut.pooled_size, [layer.name for layer in cut.fc_layers]
        (16, (7, 7), ['fc1', 'fc2'])
    """
    network = _flat_copy(network)
    classifier = _layers_after_pooling(network)
    if classifier is not None:
        pooling, fc_layers = classifier
        features, pooled_size = pooling.input, pooling.output.shape[1:3]
    else:
        features, fc_layers = _last_feature_map(network, stride), []
    convolutions = keras.Model(network.input, features, name="convolutions")
    return Cut(convolutions, _stride(network, features), tuple(pooled_size), fc_layers)


def with_any_image_size(convolutions, name):
    """A copy with the same weights that takes images of any height and width."""
    images = keras.Input((None, None, convolutions.input.shape[-1]), name="preprocessed_images")
    copy = keras.models.clone_model(convolutions, input_tensors=images)
    copy.set_weights(convolutions.get_weights())
    copy.name = name
    return copy


def _flat_copy(network):
    """A copy without models nested in it, whose input size is known so that every layer's stride is."""
    if not isinstance(network, keras.Model) or len(getattr(network, "inputs", None) or ()) != 1:
        raise InputError(
            f"backbone: found {type(network).__name__} without one image input; expected a functional or sequential "
            "Keras model; build it with keras.Model(inputs, outputs)"
        )
    sides = [side or _LAYOUT_SIDE for side in network.inputs[0].shape[1:3]]
    images = keras.Input((*sides, network.inputs[0].shape[-1]), name="preprocessed_images")
    return keras.Model(images, _replay(network, images, copies={}), name=network.name)


def _replay(network, tensor, copies):
    """Applies copies of a network's layers to a tensor, going into the models that are nested in it."""

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            return _replay(layer, args[0], copies)
        if not isinstance(layer, keras.layers.Layer) or layer in copies:
            return copies.get(layer, layer)(*args, **kwargs)
        copies[layer] = type(layer).from_config(layer.get_config())
        result = copies[layer](*args, **kwargs)
        copies[layer].set_weights(layer.get_weights())
        return result

    if isinstance(network, keras.Sequential):
        for layer in network.layers:
            tensor = call(layer, tensor)
        return tensor
    return network._run_through_graph(tensor, operation_fn=lambda layer: layer, call_fn=call)


def _layers_after_pooling(network):
    """`(pooling, fully connected layers without the classifier)` where a pooling is flattened into a chain of layers
    that ends in the classifier; else None."""
    layers = network.layers
    flatten = next((i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Flatten)), None)
    if flatten is None or not isinstance(layers[flatten - 1], _POOLINGS):
        return None
    if layers[flatten].input is not layers[flatten - 1].output:
        return None
    chain = layers[flatten + 1 :]
    dense = [i for i, layer in enumerate(chain) if isinstance(layer, keras.layers.Dense)]
    if not dense or any(
        after.input is not before.output for before, after in zip(layers[flatten:], chain, strict=False)
    ):
        return None
    return layers[flatten - 1], chain[: dense[-1]]


def _last_feature_map(network, stride):
    """The last feature map of a stride that every path through the network passes, before it widens again.

    Networks of inverted bottlenecks (MobileNet, EfficientNet) widen the map that they are about to reduce; that
    expansion belongs to the next stage and would make fc6 several times larger for nothing. So, of the maps at the
    end of the stage, the last of the narrowest run is taken.
    """
    maps = [tensor for tensor in _waists(network) if len(tensor.shape) == 4 and tensor.shape[1]]
    at_stride = [tensor for tensor in maps if _stride(network, tensor) == stride]
    if not at_stride:
        found = sorted({_stride(network, tensor) for tensor in maps})
        raise InputError(
            f"stride: found no feature map of stride {stride} in {network.name}; expected one of {found}; "
            "give one of these as stride"
        )
    position = len(at_stride) - 1
    narrowest = position
    while position > 0 and at_stride[position - 1].shape[-1] <= at_stride[position].shape[-1]:
        position -= 1
        if at_stride[position].shape[-1] < at_stride[narrowest].shape[-1]:
            narrowest = position
    return at_stride[narrowest]


def _waists(network):
    """The tensors, in order, through which every path from the input to the output leads.

    Going through the layers in order, a tensor is such a waist where, once it is made, nothing made before it is
    still waiting to be used.
    """
    uses = collections.Counter(id(tensor) for layer in network.operations for tensor in _inputs(layer))
    waiting, waists = set(), []
    for layer in network.operations:
        for tensor in _inputs(layer):
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                waiting.discard(id(tensor))
        if isinstance(layer.output, keras.KerasTensor):
            if not waiting:
                waists.append(layer.output)
            waiting.add(id(layer.output))
    return waists


def _inputs(layer):
    return [] if isinstance(layer, keras.layers.InputLayer) else keras.tree.flatten(layer.input)


def _stride(network, features):
    """Pixels of the image per cell: a power of two, since convolutions without padding lose some cells."""
    return 2 ** round(math.log2(network.input.shape[1] / features.shape[1]))
