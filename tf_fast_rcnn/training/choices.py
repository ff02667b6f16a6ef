"""Chooses the settings that a recipe leaves to the data ("auto").

The rules are the same for every dataset. `train` prints each choice with its reason, and RUN stores the chosen values.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.batches.settings import SamplingRules, detection_side
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.tiles import Tiles, is_of_tiles, object_sides, tile_fields
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbone_split import DEFAULT_OUTPUT_SIZE, feature_strides
from tf_fast_rcnn.models.backbones import WITH_FULLY_CONNECTED_LAYERS
from tf_fast_rcnn.training.settings import Recipe

# If an object has fewer cells at the middle stride than RoI pooling has bins, bins repeat cells and a finer map adds
# detail.
_FINE_STRIDES, _COARSE_STRIDES = (8, 16, 32), (16, 32)
_LARGE = DEFAULT_OUTPUT_SIZE[0] * min(_COARSE_STRIDES)
# Scale and colours of the images of large objects change at random. Small objects must stay as large as they are: on
# blood cells, the same ranges lower the average precision of platelets, the smallest, from 0.76 to 0.51.
_JITTER = {"scale_jitter": (0.7, 1.2), "brightness": 0.1, "contrast": 0.2, "saturation": 0.2}
# If the median object is smaller in the network's input, training and detection see images in tiles, in which the small
# objects have the second size. Both are square roots of areas, in pixels.
_SMALL_IN_WHOLE_IMAGES, _SIZE_IN_TILES = 24, 24
_SMALLEST_TILE = 64
# Limits of the tiles' overlap. Objects that need more are found in the whole image.
_MIN_OVERLAP, _MAX_OVERLAP = 0.1, 0.3
# The percentile of a class's object sizes that represents its small objects.
_SMALL = 10


def settle(
    recipe: Recipe,
    dataset: DetectionDataset,
    backbone: str | keras.Model,
    start: dict[str, Any] | None = None,
    tiles_allowed: bool = True,
) -> tuple[Recipe, list[str]]:
    """Replaces each "auto" in a recipe with a value chosen from the training data.

    Args:
        recipe: `Recipe`.
        dataset: `DetectionDataset`, the training images, with at least one object.
        backbone: name or `keras.Model`, see `fast_rcnn`. Networks with a name have all strides up to 32; for a model,
            only the strides that it has are chosen.
        start: run.json of the run that training starts from: its strides are kept, because its weights fit them.
        tiles_allowed: whether "auto" may choose tiles: not if the proposals are known, which are those of whole images.

    Returns:
        The recipe without "auto", and one sentence per choice that states the reason.

    Raises:
        InputError: if some objects are neither complete in any tile nor seen in the whole image.

    Example:
        >>> settled, reasons = settle(small_data(), train, "efficientnet_lite0")                # doctest: +SKIP
        >>> settled.network.stride                                                              # doctest: +SKIP
        (8, 16, 32)
    """
    recipe, reasons = _tiled(recipe, dataset, tiles_allowed)
    if recipe.network.stride == "auto":
        stride, reason = _stride(recipe, dataset, backbone, start)
        recipe = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, stride=stride))
        reasons.append(reason)
    if recipe.jitter == "auto":
        sampling, reason = _jittered(recipe, dataset)
        recipe = dataclasses.replace(recipe, jitter="given", sampling=sampling)
        reasons.append(reason)
    return recipe, reasons


def _tiled(recipe, dataset, allowed):
    """The recipe with tiles, or without, for `tile="auto"`; and the reasons, if there are any."""
    if recipe.tile is None:
        return recipe, []
    roots, longer = object_sides(dataset)
    size, reasons = recipe.tile, []
    if size == "auto":
        size, reason = _tile_size(roots, dataset, recipe.sampling) if allowed and len(roots) else (None, None)
        if size is None:
            return dataclasses.replace(recipe, tile=None), []
        reasons = [reason]
    largest = float(longer.max(initial=0.0))
    tiles = Tiles(size, *_overlap(recipe, size, largest))
    if not tiles.whole_image and largest > tiles.limit:
        raise InputError(
            f"whole_image: found false, and objects of up to {largest:.0f} pixels with tiles of {size} that overlap by "
            f"{tiles.limit:.0f}; expected true, because larger objects are not complete in any tile; choose larger "
            "tiles or overlaps, or remove the setting"
        )
    others = f"; objects above {tiles.limit:.0f} pixels are found in the whole image" if tiles.whole_image else ""
    reasons.append(f"images are seen in tiles of {size} pixels that overlap by {tiles.overlap:.0%}{others}")
    # Objects that a tile cuts are marked as difficult: they are neither objects nor background.
    difficult = "ignore" if recipe.sampling.difficult == "train" else recipe.sampling.difficult
    sampling = dataclasses.replace(recipe.sampling, difficult=difficult)
    return dataclasses.replace(recipe, sampling=sampling, **tile_fields(tiles)), reasons


def _overlap(recipe, size, largest):
    """The overlap of tiles, and whether the whole image is seen too, for objects of up to `largest` pixels."""
    overlap = recipe.tile_overlap
    if overlap == "auto":
        # Half as much again as the largest object needs, because proposals are larger than objects.
        overlap = min(max(_MIN_OVERLAP, round(1.5 * largest / size, 3)), _MAX_OVERLAP)
    return overlap, largest > size * overlap if recipe.whole_image == "auto" else recipe.whole_image


def _tile_size(roots, dataset, sampling):
    """The side of tiles in pixels of the images, and the reason; None for both if whole images are good enough.

    `roots` are the square roots of the objects' areas in pixels."""
    sides = dataset.records.image_sizes()
    side = detection_side(sampling.shorter_side)
    factor = np.median(np.minimum(side / sides.min(axis=1), sampling.longer_side / sides.max(axis=1)))
    typical = float(np.median(roots) * factor)
    size = max(_SMALLEST_TILE, round(side * float(np.percentile(roots, _SMALL)) / _SIZE_IN_TILES))
    if typical >= _SMALL_IN_WHOLE_IMAGES or size > 0.75 * np.median(sides.min(axis=1)):
        return None, None
    return size, (
        f"half of the objects are smaller than {typical:.0f} pixels in the network's input if it sees whole images, "
        f"less than {_SMALL_IN_WHOLE_IMAGES}; in tiles, small ones have {_SIZE_IN_TILES}"
    )


def _stride(recipe, dataset, backbone, start):
    """The strides of the feature maps for `network.stride="auto"`, and the reason for them."""
    if start is not None:
        stride, reason = _as_in(start)
    elif recipe.network.head == "reuse" or (recipe.network.head == "auto" and backbone in WITH_FULLY_CONNECTED_LAYERS):
        stride, reason = min(_COARSE_STRIDES), "RoIs are pooled from stride 16: a reused head continues from one map"
    else:
        stride, reason = _strides(dataset, recipe)
    return _those_of(backbone, stride, reason) if isinstance(backbone, keras.Model) else (stride, reason)


def _jittered(recipe, dataset):
    """The sampling rules for `jitter="auto"`, and the reason for them."""
    names, sampling = list(_JITTER), recipe.sampling
    defaults = SamplingRules()
    if any(getattr(sampling, name) != getattr(defaults, name) for name in names):
        return sampling, "images change at random as the recipe's sampling rules say"
    name, size = _smallest_class(dataset, recipe)
    if size < _LARGE:
        return sampling, (
            f"images keep their scale and colours: the small objects of class {name} are {size:.0f} pixels in the "
            f"network's input, smaller than {_LARGE}"
        )
    low, high = _JITTER["scale_jitter"]
    return dataclasses.replace(sampling, **_JITTER), (
        f"images are scaled by {low} to {high} and change their colours at random: the small objects of class {name} "
        f"are {size:.0f} pixels in the network's input, at least {_LARGE}"
    )


def _as_in(start):
    """The strides of another run, and why."""
    stride = start["recipe"]["network"]["stride"]
    reason = f"RoIs are pooled from stride {stride}, as in the run whose weights training starts from"
    return tuple(stride) if isinstance(stride, list) else stride, reason


def _strides(dataset, recipe):
    """The strides of the feature maps, and the reason for them."""
    name, size = _smallest_class(dataset, recipe)
    stride = _FINE_STRIDES if size < _LARGE else _COARSE_STRIDES
    relation = "smaller than" if size < _LARGE else "at least"
    listed = ", ".join(map(str, stride[:-1])) + f" and {stride[-1]}"
    return stride, (
        f"RoIs are pooled from strides {listed}: the small objects of class {name} (tenth percentile) are {size:.0f} "
        f"pixels in the network's input, {relation} {_LARGE} = {DEFAULT_OUTPUT_SIZE[0]} bins x stride "
        f"{min(_COARSE_STRIDES)}"
    )


def _those_of(network, wanted, reason):
    """The wanted strides that a user's network has; if it has none of them, its largest stride."""
    known = feature_strides(network)
    stride = tuple(each for each in np.atleast_1d(wanted).tolist() if each in known) or (known[-1],)
    stride = stride if isinstance(wanted, tuple) else stride[0]
    return stride, reason if stride == wanted else f"{reason}; {network.name} has strides {', '.join(map(str, known))}"


def _smallest_class(dataset, recipe):
    """The class with the smallest small objects, and their size: the square root of the area, in pixels of the
    network's input."""
    shorter, sampling, tiles = detection_side(recipe.sampling.shorter_side), recipe.sampling, recipe.tiles
    sizes = {name: [] for name in dataset.class_names}
    for record in dataset:
        factor = min(
            shorter / min(record.height, record.width), sampling.longer_side / max(record.height, record.width)
        )
        pixels = boxes.scale(record.boxes, record.height, record.width)
        factors = factor if tiles is None else np.where(is_of_tiles(pixels, tiles), shorter / tiles.size, factor)
        areas = boxes.area(pixels) * factors**2
        for class_id, area in zip(record.class_ids[~record.crowd], areas[~record.crowd], strict=True):
            sizes[dataset.class_names[class_id - 1]].append(area**0.5)
    small = {name: float(np.percentile(values, _SMALL)) for name, values in sizes.items() if values}
    # A dataset with only crowds has nothing to train on; that is an error elsewhere.
    return min(small.items(), key=lambda item: item[1], default=("", 0.0))
