"""Access to the parts of a detector made by `fast_rcnn`, including one that was saved and loaded.

A detector is a plain `keras.Model`; its parts are found by the names of their layers, which only this module knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from tf_fast_rcnn.models.backbone_split import STAGE_NAME
from tf_fast_rcnn.ops.portable_roi_pooling import to_cells
from tf_fast_rcnn.ops.roi_pooling import RoIPooling, choose_implementation

BACKBONE = "convolutions"
ROI_CORNERS = "roi_corners"
# The corners of RoIs that are enlarged to include context.
ROI_CONTEXT = "roi_context"
# The layer that concatenates RoIs pooled from several feature maps.
POOLED = "roi_pooling"
# The predictor layers for the paper's two outputs. The layer of the class scores is also the model's first output.
CLASS_LOGITS, BOX_REGRESSION = PREDICTOR_LAYERS = ("class_logits", "box_regression")
BOX_BY_CLASS = "box_by_class"
# The layer that undoes the normalisation of the targets. It is also the model's second output.
BOX_DELTAS = "box_deltas"
# Names in the configurations of layers and losses in models saved by version 0.1.
EARLIER_NAMES = {"deviation": "std"}


def number_of_classes(model: keras.Model) -> int:
    """K, the number of classes without the background."""
    return model.output[CLASS_LOGITS].shape[-1] - 1


def backbone_of(model: keras.Model) -> keras.Model:
    """The convolutional network before RoI pooling, as a model."""
    return model.get_layer(BACKBONE)


def pretrained_parts(model: keras.Model) -> list[keras.Model]:
    """The models whose weights come from the pre-trained network: the backbone and, if there is one, the reused stage
    after RoI pooling."""
    return [layer for layer in model.layers if layer.name in (BACKBONE, STAGE_NAME)]


def class_layer(model: keras.Model) -> keras.layers.Layer:
    """The fully connected layer that outputs the class scores."""
    return model.get_layer(CLASS_LOGITS)


def regression_layer(model: keras.Model) -> keras.layers.Layer:
    """The fully connected layer that outputs the normalised box regression."""
    return model.get_layer(BOX_REGRESSION)


def denormalization_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer with the mean and the standard deviation of the regression targets."""
    return model.get_layer(BOX_DELTAS)


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the backbone, in order."""
    return backbone_of(model).layers


def head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers after the backbone up to the outputs, in order, including those of a reused stage."""
    names = [layer.name for layer in model.layers]
    after = model.layers[names.index(BACKBONE) + 1 :]
    return [part for layer in after for part in getattr(layer, "layers", [layer])]


def layer_outputs(model: keras.Model) -> dict[str, Any]:
    """The output tensor of each layer in the graph of this model, by the layer's name.

    `layer.output` is the output in the graph in which the layer was first used, which may be another one.
    """
    return {node.operation.name: node.outputs[0] for nodes in model._nodes_by_depth.values() for node in nodes}


class Stages(NamedTuple):
    """A model in three parts that share its layers: per image, RoI pooling, and per RoI.

    Attributes:
        convolve: images float32 `[B, H, W, 3]` -> feature map `[B, h, w, C]`, or a list of several.
        pool: output of `convolve` and rois `[B, R, 4]` -> `[B, R, P, Q, C]`; training: see `roi_pool`.
        classify: pooled RoIs -> the model's outputs.
        cells: rois `[R, 4]` -> for each feature map int32 `[R, 4]`, the feature-map cells of their corners. RoIs with
            equal cells are pooled to the same values.
        is_native: whether RoI pooling is the compiled op.
    """

    convolve: keras.Model
    pool: Callable
    classify: keras.Model
    cells: Callable
    is_native: bool


def stages(model: keras.Model, roi_pooling: str | None = None) -> Stages:
    """Splits a Fast R-CNN model, so that RoIs of images of different sizes can share one pass through the RoI layers.

    Args:
        model: a model made by `fast_rcnn`.
        roi_pooling: "native", "portable" or "auto"; None keeps the model's setting.
    """
    poolings = [layer for layer in model.layers if isinstance(layer, RoIPooling)]
    features = [layer.input[0] for layer in poolings]
    corners = [layer.input[1]._keras_history.operation for layer in poolings]
    pooled = poolings[0].output if len(poolings) == 1 else model.get_layer(POOLED).output
    if roi_pooling is not None:
        poolings = [RoIPooling.from_config({**layer.get_config(), "implementation": roi_pooling}) for layer in poolings]

    def pool(features, rois, training=False):
        pooled = [
            layer(each, corners_of(rois), training=training)
            for layer, each, corners_of in zip(poolings, keras.tree.flatten(features), corners, strict=True)
        ]
        return keras.ops.concatenate(pooled, axis=-1)

    def cells(rois):
        return [
            to_cells(corners_of(rois), layer.spatial_scale) for layer, corners_of in zip(poolings, corners, strict=True)
        ]

    return Stages(
        convolve=keras.Model(model.input["images"], features, name="convolve"),
        pool=pool,
        classify=keras.Model(pooled, model.output, name="classify"),
        cells=cells,
        is_native=all(choose_implementation(layer.implementation) == "native" for layer in poolings),
    )
