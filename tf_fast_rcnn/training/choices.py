"""What a recipe leaves to the data ("auto"), and the rules by which it is chosen.

The rules are the same for every data set. `train` prints each choice with its reason, and RUN keeps the chosen values.
"""

import dataclasses

import keras
import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.batches.settings import detection_side
from tf_fast_rcnn.data.records import DetectionDataset
from tf_fast_rcnn.models.backbone_split import DEFAULT_OUTPUT_SIZE, feature_strides
from tf_fast_rcnn.training.settings import Recipe

# Where an object is smaller than the bins of the middle stride, bins repeat cells and the finer map adds detail.
_FINE_STRIDES, _COARSE_STRIDES = (8, 16, 32), (16, 32)
# A class's small objects: the tenth percentile of its sizes.
_SMALL = 10


def settle(recipe: Recipe, dataset: DetectionDataset, backbone: str | keras.Model) -> tuple[Recipe, list[str]]:
    """Chooses what a recipe leaves to the data.

    Args:
        recipe: `Recipe`.
        dataset: `DetectionDataset`, the training images; it has objects.
        backbone: name or `keras.Model`, see `fast_rcnn`. Networks that have a name have all strides up to 32; of a
            model only those strides are chosen that it has.

    Returns:
        The recipe without "auto", and one sentence for each choice.

    Example:
        >>> settled, reasons = settle(small_data(), train, "efficientnet_lite0")                # doctest: +SKIP
        >>> settled.network.stride                                                              # doctest: +SKIP
        (8, 16, 32)
    """
    if recipe.network.stride != "auto":
        return recipe, []
    stride, reason = _strides(dataset, recipe.sampling)
    if isinstance(backbone, keras.Model):
        stride, reason = _those_of(backbone, stride, reason)
    return dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, stride=stride)), [reason]


def _strides(dataset, sampling):
    """The strides of the feature maps, and why."""
    name, size = _smallest_class(dataset, sampling)
    enough = DEFAULT_OUTPUT_SIZE[0] * min(_COARSE_STRIDES)
    stride = _FINE_STRIDES if size < enough else _COARSE_STRIDES
    relation = "smaller than" if size < enough else "at least"
    listed = ", ".join(map(str, stride[:-1])) + f" and {stride[-1]}"
    return stride, (
        f"RoIs are pooled from strides {listed}: the small objects of class {name} (tenth percentile) are {size:.0f} "
        f"pixels in the network's input, {relation} {enough}, the {DEFAULT_OUTPUT_SIZE[0]} bins of stride "
        f"{min(_COARSE_STRIDES)}"
    )


def _those_of(network, wanted, reason):
    """Of the strides wanted, those that a user's network has; else the largest that it has."""
    known = feature_strides(network)
    stride = tuple(each for each in wanted if each in known) or (known[-1],)
    return stride, reason if stride == wanted else f"{reason}; {network.name} has those of {', '.join(map(str, known))}"


def _smallest_class(dataset, sampling):
    """The class whose small objects are the smallest, and their size: the square root of the area, in pixels of the
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
    # A data set of crowds alone has nothing to train on, and is refused elsewhere.
    return min(small.items(), key=lambda item: item[1], default=("", 0.0))
