"""Chooses the settings that a recipe leaves to the data ("auto").

The rules are the same for every dataset. `train` prints each choice with its reason, and RUN stores the chosen values.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.batches.settings import detection_side
from tf_fast_rcnn.data.records import DetectionDataset
from tf_fast_rcnn.models.backbone_split import DEFAULT_OUTPUT_SIZE, feature_strides
from tf_fast_rcnn.training.settings import Recipe

# If an object has fewer cells at the middle stride than RoI pooling has bins, bins repeat cells and a finer map adds
# detail.
_FINE_STRIDES, _COARSE_STRIDES = (8, 16, 32), (16, 32)
# The percentile of a class's object sizes that represents its small objects.
_SMALL = 10


def settle(
    recipe: Recipe, dataset: DetectionDataset, backbone: str | keras.Model, start: dict[str, Any] | None = None
) -> tuple[Recipe, list[str]]:
    """Replaces each "auto" in a recipe with a value chosen from the training data.

    Args:
        recipe: `Recipe`.
        dataset: `DetectionDataset`, the training images, with at least one object.
        backbone: name or `keras.Model`, see `fast_rcnn`. Networks with a name have all strides up to 32; for a model,
            only the strides that it has are chosen.
        start: run.json of the run that training starts from: its strides are kept, because its weights fit them.

    Returns:
        The recipe without "auto", and one sentence per choice that states the reason.

    Example:
        >>> settled, reasons = settle(small_data(), train, "efficientnet_lite0")                # doctest: +SKIP
        >>> settled.network.stride                                                              # doctest: +SKIP
        (8, 16, 32)
    """
    if recipe.network.stride != "auto":
        return recipe, []
    if start is not None:
        stride, reason = _as_in(start)
    elif recipe.network.head == "reuse":
        stride, reason = min(_COARSE_STRIDES), "RoIs are pooled from stride 16: a reused head continues from one map"
    else:
        stride, reason = _strides(dataset, recipe.sampling)
    if isinstance(backbone, keras.Model):
        stride, reason = _those_of(backbone, stride, reason)
    return dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, stride=stride)), [reason]


def _as_in(start):
    """The strides of another run, and why."""
    stride = start["recipe"]["network"]["stride"]
    reason = f"RoIs are pooled from stride {stride}, as in the run whose weights training starts from"
    return tuple(stride) if isinstance(stride, list) else stride, reason


def _strides(dataset, sampling):
    """The strides of the feature maps, and the reason for them."""
    name, size = _smallest_class(dataset, sampling)
    enough = DEFAULT_OUTPUT_SIZE[0] * min(_COARSE_STRIDES)
    stride = _FINE_STRIDES if size < enough else _COARSE_STRIDES
    relation = "smaller than" if size < enough else "at least"
    listed = ", ".join(map(str, stride[:-1])) + f" and {stride[-1]}"
    return stride, (
        f"RoIs are pooled from strides {listed}: the small objects of class {name} (tenth percentile) are {size:.0f} "
        f"pixels in the network's input, {relation} {enough} = {DEFAULT_OUTPUT_SIZE[0]} bins x stride "
        f"{min(_COARSE_STRIDES)}"
    )


def _those_of(network, wanted, reason):
    """The wanted strides that a user's network has; if it has none of them, its largest stride."""
    known = feature_strides(network)
    stride = tuple(each for each in np.atleast_1d(wanted).tolist() if each in known) or (known[-1],)
    stride = stride if isinstance(wanted, tuple) else stride[0]
    return stride, reason if stride == wanted else f"{reason}; {network.name} has strides {', '.join(map(str, known))}"


def _smallest_class(dataset, sampling):
    """The class with the smallest small objects, and their size: the square root of the area, in pixels of the
    network's input."""
    shorter = detection_side(sampling.shorter_side)
    sizes = {name: [] for name in dataset.class_names}
    for record in dataset:
        factor = min(
            shorter / min(record.height, record.width), sampling.longer_side / max(record.height, record.width)
        )
        areas = boxes.area(boxes.scale(record.boxes, record.height * factor, record.width * factor))
        for class_id, area in zip(record.class_ids[~record.crowd], areas[~record.crowd], strict=True):
            sizes[dataset.class_names[class_id - 1]].append(area**0.5)
    small = {name: float(np.percentile(values, _SMALL)) for name, values in sizes.items() if values}
    # A dataset with only crowds has nothing to train on; that is an error elsewhere.
    return min(small.items(), key=lambda item: item[1], default=("", 0.0))
