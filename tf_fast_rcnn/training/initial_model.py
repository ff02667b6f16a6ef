"""The initial model of a training run, with the weights of a backbone or of another run's detector."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.statistics import box_statistics
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.fast_rcnn import fast_rcnn
from tf_fast_rcnn.models.parts import PREDICTOR_LAYERS, denormalization_layer, pretrained_parts
from tf_fast_rcnn.models.pretrained import copy_weights, kernel_and_bias
from tf_fast_rcnn.models.truncated_svd import with_factors_of
from tf_fast_rcnn.training import run_folder

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.training.settings import Recipe


def initial_model(
    dataset: DetectionDataset,
    recipe: Recipe,
    backbone: str | keras.Model,
    weights: StrPath | None,
    roi_pooling: str,
    seed: int,
) -> keras.Model:
    """The detector before the first training step. Arguments as in `train`; the dataset includes proposals.

    Raises:
        InputError: if `weights` is a run with a different backbone, head or stride.
    """
    options = {**dataclasses.asdict(recipe.network), "roi_pooling": roi_pooling, "seed": seed}
    if weights is None or not Path(weights).is_dir():
        statistics = box_statistics(dataset, difficult=recipe.sampling.difficult)
        return fast_rcnn(backbone, len(dataset.class_names), weights=weights, box_statistics=statistics, **options)
    other = run_folder.load_run(weights)
    same_classes = other.class_names == dataset.class_names
    # The box regression of the other run is normalised by that run's statistics.
    regression = denormalization_layer(other.model)
    statistics = (
        boxes.BoxStatistics(regression.mean, regression.std)
        if same_classes
        else box_statistics(dataset, difficult=recipe.sampling.difficult)
    )
    model = fast_rcnn(backbone, len(dataset.class_names), weights=None, box_statistics=statistics, **options)
    model = with_factors_of(model, other.model)
    replaced = set() if same_classes else set(PREDICTOR_LAYERS)
    _copy_weights(other.model, model, replaced)
    return model


def _copy_weights(source, target, left_out):
    """Copies the weights of the backbone and of a reused stage, which must fit, and of other layers if their names and
    shapes are equal."""
    parts = [part.name for part in pretrained_parts(target)]
    known = [layer.name for layer in source.layers]
    for part in parts:
        if part not in known or _copy_layers(source.get_layer(part), target.get_layer(part)):
            raise InputError(
                f"weights: found a run whose layers do not fit ({part}); expected one with the same backbone, head and "
                "stride; check --weights, --backbone and --set network.head"
            )
    _copy_layers(source, target, {*parts, *left_out})


def _copy_layers(source, target, left_out=()):
    """Copies the weights of layers with equal names and shapes; returns the names of layers that do not fit."""
    known = {layer.name: layer for layer in source.layers}
    unfit = []
    for layer in target.layers:
        if layer.name in left_out or not layer.weights:
            continue
        other = known.get(layer.name)
        if isinstance(layer, keras.layers.Dense) and isinstance(other, keras.layers.Dense):
            weights = kernel_and_bias(other)
            fits = [weight.shape for weight in layer.weights] == [weight.shape for weight in weights]
            layer.set_weights(weights) if fits else unfit.append(layer.name)
        elif other and [weight.shape for weight in layer.weights] == [weight.shape for weight in other.weights]:
            copy_weights(other, layer)
        else:
            unfit.append(layer.name)
    return unfit
