"""Finds where a classification network is cut for RoI pooling: the first of the paper's three transformations.

Works on the graph of any functional or sequential Keras model, and not on a list of known networks.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError, check_choice
from tf_fast_rcnn.ops.roi_pooling import is_pyramid, pooling_grids

if TYPE_CHECKING:
    from tf_fast_rcnn.ops.roi_pooling import PoolSize

# The image side at which a network with a free input size is laid out to read its strides.
_LAYOUT_SIDE = 224

HEADS = ("auto", "fc", "reuse")

# The carried stage's name in the detector.
STAGE_NAME = "last_stage"

# Of the paper's network L.
DEFAULT_OUTPUT_SIZE = (7, 7)

_POOLINGS = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)


class Cut(NamedTuple):
    """A classification network cut in two at the place of RoI pooling.

    Attributes:
        convolutions: `keras.Model`, preprocessed images -> list of the feature maps that RoIs are pooled from.
        strides: pixels of the image per cell of each map.
        roi_output_size: `(H, W)` of a pooled RoI, or several for a pyramid (see `pooling_grids`).
        fc_layers: the network's fully connected layers (with their activations and dropout) without the last one,
            which classifies, where they are carried over.
        stage: where the network's last stage is carried over: `keras.Model`, pooled RoIs `[N, H, W, C]` -> `[N, D]`.
            Where there are neither layers nor a stage, fully connected layers have to be made.
    """

    convolutions: keras.Model
    strides: list
    roi_output_size: tuple
    fc_layers: list
    stage: keras.Model | None = None


def cut_at_roi_pooling(
    network: keras.Model, stride: int | Sequence[int] = 16, roi_output_size: PoolSize | None = None, head: str = "auto"
) -> Cut:
    """Cuts at the pooling that feeds the classifier; where there is none, at the last feature map of each stride.

    Args:
        network: functional or sequential `keras.Model` from images to class scores; left as it is.
        stride: where the network is cut, unless that is at the pooling before its fully connected layers: a number, or
            several.
        roi_output_size: of a pooled RoI, as in `pooling_grids`. None: what the carried layers saw when the network
            classified images, or (7, 7).
        head: "fc", "reuse" or "auto": see `fast_rcnn`.

    Raises:
        InputError: where the network is no graph of layers, or has no feature map of `stride`; where a stage cannot be
            carried over, or the carried layers do not fit `roi_output_size`.

    Example:
        >>> cut = cut_at_roi_pooling(keras.applications.VGG16(weights=None))
        >>> cut.strides, cut.roi_output_size, [layer.name for layer in cut.fc_layers]
        ([16], (7, 7), ['fc1', 'fc2'])
        >>> cut_at_roi_pooling(keras.applications.ResNet50(weights=None)).stage.output_shape
        (None, 2048)
    """
    check_choice("head", head, HEADS)
    network = _flat_copy(network)
    grids = None if roi_output_size is None else pooling_grids(roi_output_size, "roi_output_size")
    at_pooling = _layers_after_pooling(network) if head != "fc" else None
    if at_pooling is not None and (at_pooling[1] or head == "auto"):
        return _cut_before_fc_layers(network, at_pooling[0], at_pooling[1], grids, head)
    features = [_last_feature_map(network, each) for each in np.atleast_1d(stride)]
    if head == "reuse" or (head == "auto" and _reuses_stage(network, stride, grids)):
        return _cut_before_stage(network, features, grids)
    return _cut(network, features, grids or DEFAULT_OUTPUT_SIZE)


def _cut(network, features, grids, fc_layers=(), stage=None):
    convolutions = keras.Model(network.input, features, name="convolutions")
    return Cut(convolutions, [_stride(network, each) for each in features], grids, list(fc_layers), stage)


def _cut_before_fc_layers(network, pooling, fc_layers, grids, head):
    """RoI pooling takes the place of the network's last pooling, and gives what the first layer takes."""
    own = pooling.outputs[0].shape[1:3]
    if grids in (None, own):
        return _cut(network, pooling.input_tensors, own, fc_layers)
    if head == "reuse":
        _refuse_output_size(grids, f"{own}, which {fc_layers[0].name} of {network.name} takes")
    return _cut(network, pooling.input_tensors, grids)


def _refuse_output_size(grids, expected):
    raise InputError(
        f"roi_output_size: found {grids}; expected {expected}; leave it out, or make new layers (head='fc')"
    )


def _reuses_stage(network, stride, grids):
    """Whether "auto" keeps the last stage: of ResNets cut before conv5, as He et al. (2016) do."""
    single = np.atleast_1d(stride).tolist() == [16] and not (grids and is_pyramid(grids))
    return single and network.name.startswith("resnet")


def _cut_before_stage(network, features, grids):
    """RoI pooling takes the place of the whole image's feature map, and gives the stages after it what they saw."""
    if len(features) > 1:
        raise InputError(
            f"stride: found {len(features)} feature maps with head='reuse'; expected one, for {network.name} went on "
            "from one; give one stride, or make new layers (head='fc')"
        )
    if len(network.outputs) > 1 or all(node.outputs[0] is not features[0] for node in _waists(network)):
        raise InputError(
            f"head: found 'reuse' for {network.name}, where paths lead past the feature map that is pooled; expected "
            "one that all paths pass; give another stride, or make new layers (head='fc')"
        )
    own = features[0].shape[1:3]
    if grids and is_pyramid(grids):
        _refuse_output_size(grids, f"one grid such as {own}, since convolutions follow")
    try:
        stage = _stage_after(network, features[0], grids or own)
    except ValueError:  # Keras's word for a map that is too small, or a weight of another shape
        _refuse_output_size(grids, f"a size that the layers of {network.name} after the cut take, such as {own}")
    return _cut(network, features, grids or own, stage=stage)


def _stage_after(network, features, grid):
    """The layers from a feature map to what the classifier is given, as a model of `[N, H, W, C]` -> `[N, D]`.

    A map that is left at the end is averaged: where a 1x1 convolution classifies each cell and the mean is taken after
    it (SqueezeNet), that is the same.
    """
    classifier = _classifier(network)
    vectors = network.outputs[0] if classifier is None else classifier.input_tensors[0]
    if len(vectors.shape) == 4:
        vectors = keras.layers.GlobalAveragePooling2D(name="pooled_stage")(vectors)
    after = keras.Model(features, vectors)
    pooled = keras.Input((*grid, features.shape[-1]), name="pooled_rois")
    stage = keras.models.clone_model(after, input_tensors=pooled)
    stage.set_weights(after.get_weights())
    stage.name = STAGE_NAME
    return stage


def _classifier(network):
    """The node of the last layer with weights, where that classifies: a dense layer, or a 1x1 convolution of a network
    whose output is no map. Else None: the network was given without a classifier."""
    weighted = [node for node in _nodes(network) if getattr(node.operation, "weights", None)]
    layer = weighted[-1].operation if weighted else None
    by_cells = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)
    classifies = isinstance(layer, keras.layers.Dense) or (by_cells and len(network.outputs[0].shape) == 2)
    return weighted[-1] if classifies else None


def with_any_image_size(convolutions: keras.Model, name: str) -> keras.Model:
    """A copy with the same weights that takes images of any height and width."""
    images = keras.Input((None, None, convolutions.input.shape[-1]), name="preprocessed_images")
    copy = keras.models.clone_model(convolutions, input_tensors=images)
    copy.set_weights(convolutions.get_weights())
    copy.name = name
    return copy


def _flat_copy(network):
    """A copy without models nested in it, whose input size is known so that every layer's stride is."""
    _check_is_graph(network)
    sides = [side or _LAYOUT_SIDE for side in network.inputs[0].shape[1:3]]
    images = keras.Input((*sides, network.inputs[0].shape[-1]), name="preprocessed_images")
    return keras.Model(images, _replay(network, images, copies={}), name=network.name)


def _check_is_graph(network):
    if not isinstance(network, keras.Model) or len(getattr(network, "inputs", None) or ()) != 1:
        raise InputError(
            f"backbone: found {type(network).__name__} without one image input; expected a functional or sequential "
            "Keras model; build it with keras.Model(inputs, outputs)"
        )


def _replay(network, tensor, copies):
    """Applies copies of a network's layers to a tensor, going into the models that are nested in it."""

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            _check_is_graph(layer)
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
    """`(node of the pooling, fully connected layers without the classifier)` where a pooling is flattened into a chain
    of layers that ends in the classifier; else None."""
    nodes = _nodes(network)
    flatten = next((i for i, node in enumerate(nodes) if isinstance(node.operation, keras.layers.Flatten)), None)
    if flatten is None or not isinstance(nodes[flatten - 1].operation, _POOLINGS):
        return None
    chain = nodes[flatten - 1 :]
    if any(after.input_tensors[0] is not before.outputs[0] for before, after in itertools.pairwise(chain)):
        return None
    layers = [node.operation for node in nodes[flatten + 1 :]]
    dense = [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Dense)]
    # Pooling to a single cell is global pooling by another name.
    if not dense or nodes[flatten - 1].outputs[0].shape[1:3] == (1, 1):
        return None
    return nodes[flatten - 1], layers[: dense[-1]]


def _last_feature_map(network, stride):
    """The last feature map of a stride that every path through the network passes, before it widens again or
    classifies.

    Networks of inverted bottlenecks (MobileNet, EfficientNet) widen the map that they are about to reduce; that
    expansion belongs to the next stage and would make fc6 several times larger for nothing. So, of the maps since the
    stage last mixed cells or paths, the last of the narrowest is taken.

    Where paths of two cells run side by side everywhere (NASNet), no map is passed by all of them; the last
    and widest that joins paths is what the stage has put together.
    """
    maps = _feature_maps(network)
    maps_at_stride = [node for node in maps if _stride(network, node.outputs[0]) == stride]
    if not maps_at_stride:
        found = sorted({_stride(network, node.outputs[0]) for node in maps})
        raise InputError(
            f"stride: found no feature map of stride {stride} in {network.name}; expected one of {found}; "
            "give one of these as stride"
        )
    waists = {id(node) for node in _waists(network)}
    at_stride = [node for node in maps_at_stride if id(node) in waists]
    if not at_stride:
        joints = [node for node in maps_at_stride if len(node.input_tensors) > 1]
        return max(reversed(joints), key=lambda node: node.outputs[0].shape[-1]).outputs[0]
    features = at_stride[-1].outputs[0]
    for node in reversed(at_stride):
        if node.outputs[0].shape[-1] < features.shape[-1]:
            features = node.outputs[0]
        if _mixes(node):
            break
    return features


def feature_strides(network: keras.Model) -> list[int]:
    """The strides at which a classification network has feature maps, rising.

    Args:
        network: functional or sequential `keras.Model` from images to class scores.

    Raises:
        InputError: if the network is not a graph of layers.

    Example:
        >>> feature_strides(keras.applications.MobileNetV2(weights=None))
        [2, 4, 8, 16, 32]
    """
    network = _flat_copy(network)
    return sorted({_stride(network, node.outputs[0]) for node in _feature_maps(network)})


def _feature_maps(network):
    """The nodes before the classifier that make feature maps, in order."""
    classifier = _classifier(network)
    before = itertools.takewhile(lambda node: node is not classifier, _nodes(network))
    return [node for node in before if _is_feature_map(node)]


def _is_feature_map(node):
    """Whether a node makes `[B, h, w, C]` of something; padding does not: its zeros are the next layer's business."""
    shape = node.outputs[0].shape
    no_maps = (keras.layers.InputLayer, keras.layers.ZeroPadding2D)
    return len(shape) == 4 and bool(shape[1]) and not isinstance(node.operation, no_maps)


def _mixes(node):
    """Whether a node joins paths or neighbouring cells; 1x1 convolutions, normalisations and activations do neither.

    A product is an activation such as x * sigmoid(x): by Keras's layer, or by its operation, which has no public name.
    """
    sizes = [getattr(node.operation, name, 1) for name in ("kernel_size", "pool_size")]
    joins = len(node.input_tensors) > 1 and type(node.operation).__name__ != "Multiply"
    return joins or max(keras.tree.flatten(sizes)) > 1


def _waists(network):
    """The nodes, in order, through whose output every path from the input to the network's output leads.

    Going through the nodes in order, one is such a waist where, once its output is made, nothing made before it is
    still waiting to be used.
    """
    nodes = _nodes(network)
    uses = collections.Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    waiting, waists = set(), []
    for node in nodes:
        for tensor in node.input_tensors:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                waiting.discard(id(tensor))
        if not waiting and len(node.outputs) == 1:
            waists.append(node)
        waiting.update(id(tensor) for tensor in node.outputs)
    return waists


def _nodes(network):
    """Every call of an operation, in order; a layer that is called twice, or in another network too, has several."""
    return [node for depth in sorted(network._nodes_by_depth, reverse=True) for node in network._nodes_by_depth[depth]]


def _stride(network, features):
    """Pixels of the image per cell: a power of two, since convolutions without padding lose some cells."""
    return 2 ** round(math.log2(network.input.shape[1] / features.shape[1]))
