"""The parts of a detector that `fast_rcnn` made, also after it was saved and loaded.

A detector is a plain `keras.Model`; its parts are known by the names of their layers, which this module alone spells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from tf_fast_rcnn.models.backbone_split import STAGE_NAME
from tf_fast_rcnn.ops.portable_roi_pooling import to_cells
from tf_fast_rcnn.ops.roi_pooling import RoIPooling

BACKBONE = "convolutions"
ROI_CORNERS = "roi_corners"
# The corners of RoIs that are enlarged to show their surroundings.
ROI_CONTEXT = "roi_context"
# What several pooled feature maps are joined by.
POOLED = "roi_pooling"
# The predictor layers of the paper's two outputs; the class scores' layer is also the model's first output.
CLASS_LOGITS, BOX_REGRESSION = PREDICTOR_LAYERS = ("class_logits", "box_regression")
BOX_BY_CLASS = "box_by_class"
# The layer that undoes the normalisation of the targets; also the model's second output.
BOX_DELTAS = "box_deltas"
# Of the configurations of layers and losses, in models that 0.1 saved.
EARLIER_NAMES = {"deviation": "std"}


def number_of_classes(model: keras.Model) -> int:
    """K: the classes without the background."""
    return model.output[CLASS_LOGITS].shape[-1] - 1


def backbone_of(model: keras.Model) -> keras.Model:
    """The model of the convolutions before RoI pooling."""
    return model.get_layer(BACKBONE)


def pretrained_parts(model: keras.Model) -> list[keras.Model]:
    """The models whose weights come from the pre-trained network: the backbone, and a stage carried over behind RoI
    pooling where there is one."""
    return [layer for layer in model.layers if layer.name in (BACKBONE, STAGE_NAME)]


def class_layer(model: keras.Model) -> keras.layers.Layer:
    """The fully connected layer of the class scores."""
    return model.get_layer(CLASS_LOGITS)


def regression_layer(model: keras.Model) -> keras.layers.Layer:
    """The fully connected layer of the normalised box regression."""
    return model.get_layer(BOX_REGRESSION)


def denormalization_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer with the mean and the deviation of the regression targets."""
    return model.get_layer(BOX_DELTAS)


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of the convolutions, in order."""
    return backbone_of(model).layers


def head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers after the convolutions, in order, those of a carried stage among them, down to the outputs."""
    names = [layer.name for layer in model.layers]
    after = model.layers[names.index(BACKBONE) + 1 :]
    return [part for layer in after for part in getattr(layer, "layers", [layer])]


class Stages(NamedTuple):
    """A model in three parts that share its layers: what runs once an image, once a RoI, and in between.

    Attributes:
        convolve: images float32 `[B, H, W, 3]` -> feature map `[B, h, w, C]`, or a list of several.
        pool: what `convolve` gives and rois `[B, R, 4]` -> `[B, R, P, Q, C]`; training: see `roi_pool`.
        classify: pooled RoIs -> the model's outputs.
        cells: rois `[R, 4]` -> for each feature map int32 `[R, 4]`, the cells of their corners: RoIs with the same ones
            are pooled to the same values.
    """

    convolve: Callable
    pool: Callable
    classify: keras.Model
    cells: Callable


def stages(model: keras.Model, roi_pooling: str | None = None) -> Stages:
    """Takes a Fast R-CNN model apart, so that images of different sizes can share one pass of the RoI layers.

    Args:
        model: what `fast_rcnn` returned.
        roi_pooling: "native", "portable" or "auto"; None for the model's own.
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
    )
