"""Checks that detections in files were matched with the right images and classes, by the objects that they find.

Files that number images or classes in another way than the data set often fit it all the same, shifted by one. Then
hardly any object is found, and another reading of the same numbers finds most of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.image_names import KINDS
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_MIN_IOU = 0.5
# Readings are compared on at most this many images with objects, evenly spaced.
_MAX_COMPARED = 200
# Nothing is compared if this fraction of the objects is found: no other reading could find many more.
_ENOUGH_FOUND = 0.8
# Another reading is right if it finds more objects by this fraction of all, and, among the objects that only one of the
# two finds, significantly more (in standard deviations; McNemar's test), or all of at least three.
_MIN_GAIN = 0.2
_MIN_DEVIATIONS = 3.0
_MIN_OBJECTS = 3


class ImageReading(NamedTuple):
    """One way to understand the images of a file.

    Attributes:
        kind: a key of `image_names.KINDS`.
        image_of: int64 `[N]`, the index of the image of each row.
    """

    kind: str
    image_of: np.ndarray


def check_images(
    path: StrPath,
    dataset: DetectionDataset,
    readings: Sequence[ImageReading],
    relative_boxes: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Raises an InputError if the first reading finds far fewer objects, of any class, than another one.

    Args:
        path: the file, for the message.
        dataset: the images with their objects.
        readings: `ImageReading`s, that which is used first.
        relative_boxes: function of `image_of` that returns the boxes relative to these images, `[N, 4]`.
    """
    if len(readings) == 1:
        return
    compared = _compared(dataset)
    given = _found(compared, readings[0].image_of, relative_boxes(readings[0].image_of))
    if not _is_low(given):
        return
    for other in readings[1:]:
        found = _found(compared, other.image_of, relative_boxes(other.image_of))
        if _is_better(found, given):
            raise InputError(
                f"{path}: found {given.sum()} of {len(given)} objects where images are matched by their "
                f"{KINDS[readings[0].kind]}, and {found.sum()} by their {KINDS[other.kind]}; expected one way to match "
                f"them; pass --images-by {other.kind}, or --images-by {readings[0].kind} if that is right"
            )


def check_classes(
    path: StrPath,
    dataset: DetectionDataset,
    image_of: np.ndarray,
    relative: np.ndarray,
    labels: np.ndarray,
    others: Mapping[str, np.ndarray],
) -> None:
    """Raises an InputError if far more objects are found with the classes of another numbering.

    Args:
        path: the file, for the message.
        dataset: the images with their objects.
        image_of: int64 `[N]`, the image of each row.
        relative: `[N, 4]`, the boxes.
        labels: int32 `[N]`, the classes 1..K.
        others: labels of other numberings, 0 for none, by what to do if one is right.
    """
    compared = _compared(dataset)
    given = _found(compared, image_of, relative, labels)
    if not _is_low(given):
        return
    for todo, other in others.items():
        found = _found(compared, image_of, relative, other)
        if _is_better(found, given):
            raise InputError(
                f"{path}: found {given.sum()} of {len(given)} objects with the classes of these category ids, and "
                f"{found.sum()} with other numbers; expected those of {dataset.name}; {todo}"
            )


def _compared(dataset):
    """`(index, record)` of the images that readings are compared on."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), _MAX_COMPARED)).astype(int)).tolist()
    return [(index, dataset[index]) for index in chosen]


def _found(compared, image_of, relative, labels=None):
    """For each object, whether a detection covers it, of its class if labels are given: bool `[G]`."""
    order = np.argsort(image_of, kind="stable")
    in_order = image_of[order]
    found = [np.zeros(0, bool)]
    for index, record in compared:
        first, last = np.searchsorted(in_order, [index, index + 1])
        rows = order[first:last]
        covers = boxes.iou(np.asarray(relative[rows], np.float64), record.boxes.astype(np.float64)) >= _MIN_IOU
        if labels is not None:
            covers &= labels[rows][:, None] == record.class_ids[None, :]
        found.append(covers.any(axis=0)[~record.crowd])
    return np.concatenate(found)


def _is_low(found):
    return len(found) > 0 and found.mean() < _ENOUGH_FOUND


def _is_better(other, given):
    only_other, only_given = np.sum(other & ~given), np.sum(given & ~other)
    gain = only_other - only_given
    significant = gain >= _MIN_DEVIATIONS * math.sqrt(only_other + only_given)
    few_but_all = not only_given and only_other >= max(_MIN_OBJECTS, len(given) / 2)
    return gain > _MIN_GAIN * len(given) and (significant or few_but_all)
