"""Confusion matrix of ground-truth and detected classes."""

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
    """Counts the objects of each class by the class they were detected as.

    In order of decreasing score, each detection is matched to the unmatched object of its class with the highest IoU,
    if that IoU is at least `iou_threshold`. The remaining detections are then matched in the same way to unmatched
    objects of any class. Difficult objects and crowds do not count, and neither do detections that overlap only them.

    Args:
        dataset: `DetectionDataset`.
        detections: `Detections` of each of its images, in order.
        min_score: detections with a lower score are ignored.
        iou_threshold: minimum IoU of a match.

    Returns:
        int64 `[K + 1, K + 1]`: row k - 1 is ground-truth class k and the last row unmatched detections; column k - 1
        is detected class k and the last column missed objects.

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
    """Adds an image: IoUs `[D, G]` and class ids `[D]` of its detections, by decreasing score."""
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
