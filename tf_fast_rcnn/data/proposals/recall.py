"""Recall of object proposals: the fraction of ground-truth objects that some proposal overlaps.

A detector cannot find objects without an overlapping proposal. Crowd regions do not count as objects; difficult objects
do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

# RoIs with at least this IoU are foreground (section 2.3 of the paper).
MIN_IOU = 0.5
IOU_THRESHOLDS = tuple(float(iou) for iou in np.arange(50, 100, 5) / 100)
# With less, proposals limit what a detector can find.
ENOUGH_RECALL = 0.9
# COCO's sizes of objects: their areas in pixels of the image.
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
COUNTS = (1, 3, 10, 30, 100, 300, 1000, 2000)


class BestProposals(NamedTuple):
    """For each object of an image, the IoU of its best proposal, float32 `[G]`, and that proposal's index, int64 `[G]`.

    Without proposals, the IoU is 0 and the index -1. Ties go to the first proposal.
    """

    iou: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # a tuple's own `index` is not used


class RecallCurves(NamedTuple):
    """Fraction of objects with a proposal of sufficient IoU; NaN without objects.

    Attributes:
        thresholds: IoU thresholds `[T]`.
        by_iou: recall of all proposals at each threshold, float64 `[T]`.
        counts: numbers of proposals per image `[N]`.
        by_count: recall at `MIN_IOU` of the first proposals, for each number, float64 `[N]`.
    """

    thresholds: tuple
    by_iou: np.ndarray
    counts: tuple
    by_count: np.ndarray


def best_overlaps(record: ImageRecord) -> BestProposals:
    """The best proposal of each object of an image, crowds included.

    Args:
        record: `ImageRecord` with proposals.

    Returns:
        `BestProposals`.

    Example:
        >>> best = best_overlaps(prepared[0])                             # doctest: +SKIP
        >>> record.proposals()[best.index[0]], best.iou[0]                # doctest: +SKIP
    """
    proposals, objects = record.proposals(), record.boxes
    if not len(proposals):
        return BestProposals(np.zeros(len(objects), np.float32), np.full(len(objects), -1))
    overlaps = box_algebra.iou(proposals, objects)
    index = overlaps.argmax(axis=0)
    return BestProposals(overlaps[index, np.arange(len(objects))], index)


def recall_curves(
    records: Iterable[ImageRecord], thresholds: Sequence[float] = IOU_THRESHOLDS, counts: Sequence[int] = COUNTS
) -> RecallCurves:
    """Recall as a function of the IoU threshold, and of the number of proposals.

    Args:
        records: iterable of `ImageRecord` with proposals.
        thresholds: IoU thresholds.
        counts: numbers of proposals per image.

    Returns:
        `RecallCurves`.
    """
    best = [np.zeros((len(counts) + 1, 0), np.float32)]
    for record in records:
        objects = record.boxes[~record.crowd]
        overlaps = box_algebra.iou(record.proposals(), objects)
        best_so_far = np.maximum.accumulate(np.concatenate([np.zeros((1, len(objects))), overlaps]), axis=0)
        best.append(best_so_far[[min(count, len(overlaps)) for count in counts] + [-1]])
    *of_first, of_all = np.concatenate(best, axis=1)
    by_iou = np.array([recall(of_all, threshold) for threshold in thresholds])
    by_count = np.array([recall(overlaps) for overlaps in of_first])
    return RecallCurves(tuple(thresholds), by_iou, tuple(counts), by_count)


def recall(overlaps: Sequence[float] | np.ndarray, min_iou: float = MIN_IOU) -> float:
    """Fraction of best IoUs `[G]` that are at least `min_iou`; NaN without objects."""
    return float(np.mean(np.asarray(overlaps) >= min_iou)) if len(overlaps) else float("nan")


def recall_by_size(records: Sequence[ImageRecord], max_images: int = 500) -> dict[str, float]:
    """Recall at `MIN_IOU` of the objects of each of COCO's sizes, by area in pixels of the image.

    Args:
        records: `ImageRecord`s with proposals.
        max_images: of more images, this many are looked at, evenly spread.

    Returns:
        Dict with the recall of "all" objects and of those that are "small", "medium" and "large". Sizes without
        objects are left out; without any object, the dict is empty.

    Example:
        >>> recall_by_size(prepared)                                      # doctest: +SKIP
        {'all': 0.97, 'small': 0.92, 'large': 0.99}
    """
    overlaps, areas = [np.zeros(0, np.float32)], [np.zeros(0)]
    for index in np.unique(np.linspace(0, len(records) - 1, max_images).astype(int)) if len(records) else ():
        record = records[index]
        pixels = box_algebra.scale(record.boxes.astype(np.float64), record.height, record.width)
        overlaps.append(best_overlaps(record).iou[~record.crowd])
        areas.append(box_algebra.area(pixels)[~record.crowd])
    overlaps, areas = np.concatenate(overlaps), np.concatenate(areas)
    of_size = {"all": areas >= 0} | {name: (areas >= low) & (areas < high) for name, (low, high) in AREAS.items()}
    return {name: recall(overlaps[which]) for name, which in of_size.items() if which.any()}


def class_best_overlaps(records: Iterable[ImageRecord], class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """IoU of the best proposal of each object by class: a dict from class name to float32 `[G]`, G may be 0.

    The mean over a class's objects is its average best overlap; the mean of these over classes is the MABO of
    J. Uijlings et al., "Selective Search for Object Recognition" (IJCV 2013, section 5).

    Args:
        records: iterable of `ImageRecord` with proposals.
        class_names: names of the classes 1..K.
    """
    overlaps = [[np.zeros(0, np.float32)] for _ in class_names]
    for record in records:
        best = best_overlaps(record).iou
        for label in np.unique(record.class_ids):
            overlaps[label - 1].append(best[(record.class_ids == label) & ~record.crowd])
    return {name: np.concatenate(of_class) for name, of_class in zip(class_names, overlaps, strict=True)}
