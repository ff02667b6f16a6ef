"""PASCAL VOC average precision by the rules of the development kit (VOCevaldet.m, VOCap.m).

Detections of a class are taken by falling score over the whole data set. Each is held against the one object of its
class and image that it overlaps most. Where that overlap reaches the threshold, a difficult object makes the
detection count for nothing, an object not found before makes it a true positive, and one found before (a duplicate)
a false positive, even if it overlaps another object well enough. Everything else is a false positive. Crowds, which
VOC does not have, are taken as difficult objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.evaluation.average_precision import class_ap
from tf_fast_rcnn.evaluation.matching import class_matches, concatenated, first_matches, matching_of, precision_recall
from tf_fast_rcnn.evaluation.results import ClassResult, EvaluationResult

if TYPE_CHECKING:
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
    from tf_fast_rcnn.evaluation.matching import Matching


def evaluate_voc(
    dataset: DetectionDataset, detections: Sequence[Detections], protocol: str = "voc07", iou_threshold: float = 0.5
) -> EvaluationResult:
    """Average precision of each class of `dataset`.

    Equal scores keep the order of the images in the data set and of the detections in their image, as the kit's
    stable sort does. The kit's widths with "+ 1" are what continuous edges give.

    Args:
        dataset: `DetectionDataset`.
        detections: `Detections` of each of its images, in order; not checked here (`score_detections` does).
        protocol: "voc07" (11 points) or "voc10" (area).
        iou_threshold: smallest overlap of a match, above 0.

    Returns:
        `EvaluationResult`.
    """
    matching = match_voc(dataset, detections, iou_threshold)

    def class_result(label, name):
        matches = class_matches(matching, label)
        precision, recall = precision_recall(matches)
        num_detections = np.count_nonzero(matching.class_ids == label)
        num_objects = len(matches.object_images)
        ap = float(class_ap(protocol, [matches]))
        return ClassResult(name, ap, precision, recall, matches.scores, num_objects, num_detections)

    results = [class_result(label, name) for label, name in enumerate(dataset.class_names, start=1)]
    return EvaluationResult(protocol, iou_threshold, len(dataset), tuple(results), matchings=(matching,))


def match_voc(dataset: DetectionDataset, detections: Sequence[Detections], iou_threshold: float) -> Matching:
    """The `Matching` of detections and objects by VOC's rules; arguments as of `evaluate_voc`."""
    objects, first = [], 0
    for record, found in zip(dataset, detections, strict=True):
        local = _match(record, found, iou_threshold)
        objects.append(np.where(local >= 0, local + first, -1))
        first += len(record.class_ids)
    objects = concatenated(objects, np.int64)
    ignored = concatenated([record.difficult | record.crowd for record in dataset], bool)
    counts = objects < 0
    counts[~counts] = ~ignored[objects[~counts]]
    scores = concatenated([found.scores for found in detections], np.float32)
    true = first_matches(objects, scores) & counts
    return matching_of(dataset, detections, objects, true, counts)


def _match(record, found, iou_threshold):
    """For each detection of an image, the object of its class with the largest overlap (the first of equal ones)."""
    if not len(record.class_ids):
        return np.full(len(found.class_ids), -1)
    overlaps = boxes.iou(pixel_boxes(found.boxes, record), pixel_boxes(record.boxes, record))
    overlaps[found.class_ids[:, None] != record.class_ids] = -1.0
    best = overlaps.argmax(axis=1)
    return np.where(overlaps.max(axis=1) >= iou_threshold, best, -1)


def pixel_boxes(relative_boxes: np.ndarray, record: ImageRecord) -> np.ndarray:
    """Boxes `[N, 4]` of an image in pixels, as overlaps are measured: float64, in thousandths."""
    # Thousandths of a pixel undo float32's rounding of relative edges: boxes on whole pixels, as VOC's are, get the
    # overlap that the kit computes, and an overlap of exactly 0.5 is one.
    return np.round(boxes.scale(np.asarray(relative_boxes, np.float64), record.height, record.width), 3)
