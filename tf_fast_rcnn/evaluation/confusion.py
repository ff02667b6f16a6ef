"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.evaluation.voc import pixel_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import DetectionDataset


def confusion_matrix(
    dataset: DetectionDataset, detections: Sequence[Detections], min_score: float = 0.5, iou_threshold: float = 0.5
) -> np.ndarray:
    """How many objects of each class were detected as which.

    By falling score each detection takes the free object of its class that it overlaps most, if by `iou_threshold` or
    more; then each of those left over takes the free object of any class so. What overlaps a difficult object or a
    crowd, and nothing else, does not count; nor do these objects.

    Args:
        dataset: `DetectionDataset`.
        detections: `Detections` of each of its images, in order.
        min_score: detections below it are not looked at.
        iou_threshold: smallest overlap of a match.

    Returns:
        int64 `[K + 1, K + 1]`: row k - 1 is class k of the objects, the last row detections of nothing; column k - 1
        is class k of the detections, the last column missed objects.

    Example:
        >>> confusion_matrix(test, detections)[0, -1]       # missed objects of the first class  # doctest: +SKIP
        12
    """
    size = len(dataset.class_names) + 1
    matrix = np.zeros((size, size), np.int64)
    for record, found in zip(dataset, detections, strict=True):
        shown = found.scores >= min_score
        order = np.flatnonzero(shown)[np.argsort(-found.scores[shown], kind="stable")]
        overlaps = boxes.iou(pixel_boxes(found.boxes[order], record), pixel_boxes(record.boxes, record))
        _count(matrix, overlaps, found.class_ids[order], record, iou_threshold)
    return matrix


def _count(matrix, overlaps, classes, record, iou_threshold):
    """Adds an image: overlaps `[D, G]` and classes `[D]` of its detections, by falling score."""
    ignored = record.difficult | record.crowd
    same_class = classes[:, None] == record.class_ids
    object_of = np.full(len(classes), -1)
    free = ~ignored
    for allowed in (same_class, np.ones_like(same_class)):
        for index in np.flatnonzero(object_of < 0):
            candidates = np.where(free & allowed[index], overlaps[index], -1.0)
            if len(candidates) and candidates.max() >= iou_threshold:
                object_of[index] = candidates.argmax()
                free[object_of[index]] = False
    matched = object_of >= 0
    np.add.at(matrix, (record.class_ids[object_of[matched]] - 1, classes[matched] - 1), 1)
    np.add.at(matrix[:, -1], record.class_ids[free] - 1, 1)
    on_ignored = (overlaps[:, ignored] >= iou_threshold).any(axis=1)
    np.add.at(matrix[-1], classes[~matched & ~on_ignored] - 1, 1)
