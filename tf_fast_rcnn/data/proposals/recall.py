"""The recall of object proposals: how many of the annotated objects they find.

A detector cannot find what no proposal overlaps. Crowd boxes are no single objects and do not count; difficult ones do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

# The IoU from which a RoI is foreground (section 2.3 of the paper).
MIN_IOU = 0.5
IOU_THRESHOLDS = tuple(float(iou) for iou in np.arange(50, 100, 5) / 100)
COUNTS = (1, 3, 10, 30, 100, 300, 1000, 2000)


class BestProposals(NamedTuple):
    """For each object of an image: IoU of its best proposal, float32 `[G]`, and that one's index, int64 `[G]`.

    Without proposals the IoU is 0 and the index -1. Among equals the first proposal is the best.
    """

    iou: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # a tuple's own `index` is not used


class RecallCurves(NamedTuple):
    """Share of the objects that some proposal overlaps enough; NaN without objects.

    Attributes:
        thresholds: IoUs `[T]`; by_iou: recall at each, float64 `[T]`, of all proposals.
        counts: numbers of proposals an image `[N]`; by_count: recall at `MIN_IOU` of the first so many, float64 `[N]`.
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
    """Recall against the IoU that is asked for, and against the number of proposals.

    Args:
        records: iterable of `ImageRecord` with proposals.
        thresholds: IoUs.
        counts: numbers of proposals an image.

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
    """Share of best IoUs `[G]` that reach `min_iou`; NaN without objects."""
    return float(np.mean(np.asarray(overlaps) >= min_iou)) if len(overlaps) else float("nan")


def class_recalls(
    records: Iterable[ImageRecord], class_names: Sequence[str], min_iou: float = MIN_IOU
) -> dict[str, float]:
    """Recall of each class that occurs: dict from its name, in the order of `class_names`.

    Args:
        records: iterable of `ImageRecord` with proposals.
        class_names: names of the classes 1..K.
        min_iou: IoU from which an object counts as found.
    """
    overlaps = class_best_overlaps(records, class_names)
    return {name: recall(of_class, min_iou) for name, of_class in overlaps.items() if len(of_class)}


def class_best_overlaps(records: Iterable[ImageRecord], class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """IoU of the best proposal of each object, by class: dict from each name to float32 `[G]`, G may be 0.

    Their mean over the objects is the class's average best overlap, and the mean over classes of that the MABO of
    J. Uijlings and others, "Selective Search for Object Recognition" (IJCV 2013, section 5).

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
