"""Splits a classification network for RoI pooling: the first of the paper's three transformations.

Works on the graph of any functional or sequential Keras model, not on a list of known networks.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError, check_choice
from tf_fast_rcnn.models.backbone_checks import (
    check_copy,
    check_is_graph,
    check_layer,
    is_augmentation,
    is_transformer,
    no_other_size,
)
from tf_fast_rcnn.models.pretrained import (
    PretrainedNetwork,
    copy_layer,
    copy_layer_weights,
    copy_weights,
    is_composite,
)
from tf_fast_rcnn.ops.roi_pooling import is_pyramid, pooling_grids

if TYPE_CHECKING:
    from tf_fast_rcnn.ops.roi_pooling import PoolSize

# Networks with variable input size are built for this image side, so that the strides of their layers are known.
_LAYOUT_SIDE = 224

HEADS = ("auto", "fc", "reuse")

# The name of the reused last stage in the detector.
STAGE_NAME = "last_stage"

# Used by the paper's network L.
DEFAULT_OUTPUT_SIZE = (7, 7)

_POOLINGS = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)


class Cut(NamedTuple):
    """A classification network split in two where RoI pooling is inserted.

    Attributes:
        convolutions: `keras.Model`, preprocessed images -> list of the feature maps that RoIs are pooled from.
        strides: image pixels per cell of each map.
        roi_output_size: `(H, W)` of a pooled RoI, or several for a pyramid (see `pooling_grids`).
        fc_layers: the network's fully connected layers (with their activations and dropout) except the last one, which
            is the classifier; empty if they are not reused.
        stage: the network's last stage if it is reused: `keras.Model`, pooled RoIs `[N, H, W, C]` -> `[N, D]`. If there
            are neither layers nor a stage, the detector needs new fully connected layers.
    """

    convolutions: keras.Model
    strides: list
    roi_output_size: tuple
    fc_layers: list
    stage: keras.Model | None = None


def cut_at_roi_pooling(
    network: keras.Model, stride: int | Sequence[int] = 16, roi_output_size: PoolSize | None = None, head: str = "auto"
) -> Cut:
    """Splits a network at the pooling before its classifier, or else at the last feature map of each stride.

    Args:
        network: functional or sequential `keras.Model` from images to class scores; it is not modified.
        stride: image pixels per cell of the feature map where the network is split, one number or several. Not used if
            the network is split at the pooling before its fully connected layers.
        roi_output_size: size of a pooled RoI, as in `pooling_grids`. None: the size that the reused layers received
            when the network classified images, or (7, 7).
        head: "fc", "reuse" or "auto": see `fast_rcnn`.

    Raises:
        InputError: if the network is not a graph of layers or has no feature map with `stride`; if a stage cannot be
            reused, or the reused layers do not fit `roi_output_size`.

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
    convolutions = PretrainedNetwork(network.input, features, name="convolutions")
    return Cut(convolutions, [_stride(network, each) for each in features], grids, list(fc_layers), stage)


def _cut_before_fc_layers(network, pooling, fc_layers, grids, head):
    """Replaces the network's last pooling by RoI pooling of the size that its first dense layer expects."""
    own = pooling.outputs[0].shape[1:3]
    if grids in (None, own):
        return _cut(network, pooling.input_tensors, own, fc_layers)
    if head == "reuse":
        _refuse_output_size(grids, f"{own}, the input size of {fc_layers[0].name} in {network.name}")
    return _cut(network, pooling.input_tensors, grids)


def _refuse_output_size(grids, expected):
    raise InputError(
        f"roi_output_size: found {grids}; expected {expected}; leave it out, or use new layers (head='fc')"
    )


def _reuses_stage(network, stride, grids):
    """Whether "auto" reuses the last stage: for ResNets split before conv5, as in He et al. (2016)."""
    single = np.atleast_1d(stride).tolist() == [16] and not (grids and is_pyramid(grids))
    return single and network.name.startswith("resnet")


def _cut_before_stage(network, features, grids):
    """Feeds the stages after the split with pooled RoIs instead of the feature map of the whole image."""
    if len(features) > 1:
        raise InputError(
            f"stride: found {len(features)} feature maps with head='reuse'; expected one, the input of the last stage "
            f"of {network.name}; pass one stride, or use new layers (head='fc')"
        )
    if len(network.outputs) > 1 or all(node.outputs[0] is not features[0] for node in _waists(network)):
        raise InputError(
            f"head: found 'reuse' for {network.name}, whose skip connections bypass the pooled feature map; "
            "expected a map that all paths pass through; choose another stride, or use new layers (head='fc')"
        )
    own = features[0].shape[1:3]
    if grids and is_pyramid(grids):
        _refuse_output_size(grids, f"one grid such as {own}, since convolutions follow it")
    try:
        stage = _stage_after(network, features[0], grids or own)
    except ValueError:  # Keras raises it for a map that is too small and for a weight with another shape
        _refuse_output_size(grids, f"a size that the layers of {network.name} after the split accept, such as {own}")
    return _cut(network, features, grids or own, stage=stage)


def _stage_after(network, features, grid):
    """The layers between a feature map and the classifier, as a model `[N, H, W, C]` -> `[N, D]`.

    If the classifier's input is still a map, it is averaged. Networks that classify each cell by a 1x1 convolution and
    then average (SqueezeNet) compute the same.
    """
    classifier = _classifier(network)
    vectors = network.outputs[0] if classifier is None else classifier.input_tensors[0]
    if len(vectors.shape) == 4:
        vectors = keras.layers.GlobalAveragePooling2D(name="pooled_stage")(vectors)
    after = PretrainedNetwork(features, vectors)
    pooled = keras.Input((*grid, features.shape[-1]), name="pooled_rois")
    stage = keras.models.clone_model(after, input_tensors=pooled)
    copy_weights(after, stage)
    stage.name = STAGE_NAME
    return stage


def _classifier(network):
    """The node of the last layer with weights if it is a classifier: a dense layer, or a 1x1 convolution in a network
    whose output is not a map. Otherwise None: the network has no classifier."""
    weighted = [node for node in _nodes(network) if getattr(node.operation, "weights", None)]
    layer = weighted[-1].operation if weighted else None
    by_cells = isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)
    classifies = isinstance(layer, keras.layers.Dense) or (by_cells and len(network.outputs[0].shape) == 2)
    return weighted[-1] if classifies else None


def with_any_image_size(convolutions: keras.Model, name: str) -> keras.Model:
    """A copy with the same weights that accepts images of any height and width.

    Raises:
        InputError: if its layers do not.
    """
    images = keras.Input((None, None, convolutions.input.shape[-1]), name="preprocessed_images")
    try:
        copy = keras.models.clone_model(convolutions, input_tensors=images)
        copy_weights(convolutions, copy)
    except Exception as error:  # The code of any layer may raise any error.
        raise no_other_size("a network", error) from error
    copy.name = name
    return copy


def _flat_copy(network):
    """A copy without nested models and with a fixed input size, so that the stride of every layer is known."""
    check_is_graph(network)
    sides = [side or _LAYOUT_SIDE for side in network.inputs[0].shape[1:3]]
    images = keras.Input((*sides, network.inputs[0].shape[-1]), name="preprocessed_images")
    try:
        copy = keras.Model(images, _replay(network, images, copies={}), name=network.name)
    except InputError:
        raise
    except Exception as error:  # The code of any layer may raise any error.
        raise no_other_size(network.name, error) from error
    check_copy(network, copy)
    return copy


def _replay(network, tensor, copies):
    """Applies copies of a network's layers to a tensor, including those of nested models, but not its augmentation."""

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            check_is_graph(layer)
            return _replay(layer, args[0], copies)
        if isinstance(layer, keras.layers.Pipeline):
            return functools.reduce(lambda tensor, part: call(part, tensor), layer.layers, args[0])
        if not isinstance(layer, keras.layers.Layer) or layer in copies:
            return copies.get(layer, layer)(*args, **kwargs)
        if is_augmentation(layer):
            return args[0]
        check_layer(layer, network.name)
        copies[layer] = copy_layer(layer)
        result = copies[layer](*args, **kwargs)
        copy_layer_weights(layer, copies[layer])
        return result

    if isinstance(network, keras.Sequential):
        for layer in network.layers:
            tensor = call(layer, tensor)
        return tensor
    return network._run_through_graph(tensor, operation_fn=lambda layer: layer, call_fn=call)


def _layers_after_pooling(network):
    """`(node of the pooling, fully connected layers without the classifier)` if a pooling is flattened into a chain of
    layers that ends with the classifier; otherwise None."""
    nodes = _nodes(network)
    flatten = next((i for i, node in enumerate(nodes) if isinstance(node.operation, keras.layers.Flatten)), None)
    if flatten is None or not isinstance(nodes[flatten - 1].operation, _POOLINGS):
        return None
    chain = nodes[flatten - 1 :]
    if any(after.input_tensors[0] is not before.outputs[0] for before, after in itertools.pairwise(chain)):
        return None
    layers = [node.operation for node in nodes[flatten + 1 :]]
    dense = [i for i, layer in enumerate(layers) if isinstance(layer, keras.layers.Dense)]
    # Pooling to a single cell is the same as global pooling.
    if not dense or nodes[flatten - 1].outputs[0].shape[1:3] == (1, 1):
        return None
    return nodes[flatten - 1], layers[: dense[-1]]


def _last_feature_map(network, stride):
    """The last feature map with a stride that every path through the network passes, before the expansion for the next
    stage and before the classifier.

    Networks with inverted bottlenecks (MobileNet, EfficientNet) expand the channels of a map before they reduce its
    size. That expansion belongs to the next stage, and would make fc6 several times larger without benefit. So, among
    the maps since the last layer that mixes cells or paths, the last of the narrowest is used.

    In networks whose cells use the outputs of the two previous cells (NASNet), no map is passed by all paths. Then the
    last of the widest maps that join paths is used: the concatenated output of the stage.
    """
    maps = _feature_maps(network)
    _check_is_convolutional(network, maps)
    maps_at_stride = [node for node in maps if _stride(network, node.outputs[0]) == stride]
    if not maps_at_stride:
        found = sorted({_stride(network, node.outputs[0]) for node in maps})
        raise InputError(
            f"stride: found no feature map of stride {stride} in {network.name}; expected one of {found}; "
            "choose one of these as stride"
        )
    waists = {id(node) for node in _waists(network)}
    at_stride = [node for node in maps_at_stride if id(node) in waists]
    if not at_stride:
        joints = [node for node in maps_at_stride if len(node.input_tensors) > 1] or maps_at_stride
        return max(reversed(joints), key=lambda node: node.outputs[0].shape[-1]).outputs[0]
    features = at_stride[-1].outputs[0]
    for node in reversed(at_stride):
        if node.outputs[0].shape[-1] < features.shape[-1]:
            features = node.outputs[0]
        if _mixes(node):
            break
    return features


def _check_is_convolutional(network, maps):
    """Refuses transformers. They cut images into patches by one convolution and process the sequence of the patches, so
    that the convolution would be all that is left of them."""
    weighted = [node for node in _nodes(network) if getattr(node.operation, "weights", None)]
    before = {layer for node in maps[-1:] for layer in keras.Model(network.input, node.outputs[0]).layers}
    on_maps = {node.operation for node in weighted if node.operation in before}
    on_sequences = {node.operation for node in weighted if len(node.outputs[0].shape) == 3} - before
    convolutions = sum(_mixes(node) or is_composite(node.operation) for node in weighted if node.operation in before)
    sizes = [sum(layer.count_params() for layer in group) for group in (on_maps, on_sequences)]
    if not maps or (on_sequences and (convolutions <= 1 or sizes[0] < sizes[1])):
        raise is_transformer(network.name)


def feature_strides(network: keras.Model) -> list[int]:
    """The strides of the feature maps of a classification network, in ascending order.

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
    """The nodes before the classifier that output feature maps, in order."""
    classifier = _classifier(network)
    before = itertools.takewhile(lambda node: node is not classifier, _nodes(network))
    return [node for node in before if _is_feature_map(node)]


def _is_feature_map(node):
    """Whether a node computes a feature map `[B, h, w, C]`; zero padding does not: it belongs to the next layer."""
    shape = node.outputs[0].shape
    no_maps = (keras.layers.InputLayer, keras.layers.ZeroPadding2D)
    return len(shape) == 4 and bool(shape[1]) and not isinstance(node.operation, no_maps)


def _mixes(node):
    """Whether a node joins paths or mixes neighbouring cells; 1x1 convolutions, normalisations and activations do not.

    A product counts as an activation, such as x * sigmoid(x). It may be a Keras layer or an operation, which has no
    public name.
    """
    sizes = [getattr(node.operation, name, 1) for name in ("kernel_size", "pool_size")]
    joins = len(node.input_tensors) > 1 and type(node.operation).__name__ != "Multiply"
    return joins or max(keras.tree.flatten(sizes)) > 1


def _waists(network):
    """The nodes, in order, whose output is on every path from the network's input to its output.

    Going through the nodes in order, a node is on every path if no output of an earlier node is still needed after it.
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
    """The nodes of a network, one per call of an operation, in order. A layer that is called several times, possibly in
    different networks, has several nodes."""
    return [node for depth in sorted(network._nodes_by_depth, reverse=True) for node in network._nodes_by_depth[depth]]


def _stride(network, features):
    """Image pixels per cell, rounded to a power of two, since convolutions without padding lose some cells."""
    return 2 ** round(math.log2(network.input.shape[1] / features.shape[1]))
