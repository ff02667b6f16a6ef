"""PASCAL VOC average precision, following the development kit (VOCevaldet.m, VOCap.m).

The detections of a class are processed by decreasing score over the whole dataset. Each is compared with the object of
its class and image with which it has the highest IoU. If that IoU reaches the threshold, the detection is ignored if
the object is difficult, a true positive if the object is not matched yet, and otherwise a false positive (a duplicate),
even if its IoU with another object is sufficient. All other detections are false positives. Crowds, which VOC does not
have, are treated as difficult objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.evaluation.average_precision import class_ap
from tf_fast_rcnn.evaluation.matching import (
    class_matches,
    concatenated,
    first_matches,
    matching_of,
    precision_recall,
    scores_of,
)
from tf_fast_rcnn.evaluation.results import ClassResult, EvaluationResult

if TYPE_CHECKING:
    import numpy.typing as npt

    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.evaluation.matching import Matching


def evaluate_voc(
    dataset: DetectionDataset, detections: Sequence[Detections], protocol: str = "voc07", iou_threshold: float = 0.5
) -> EvaluationResult:
    """Average precision of each class of `dataset`.

    Detections with equal scores keep their order, as with the stable sort of the kit: the order of the lines if they
    were read from files, otherwise that of the images in the dataset and of the detections in an image. The box widths
    of the kit, with "+ 1", are equal to those between continuous edges.

    Args:
        dataset: `DetectionDataset`.
        detections: `Detections` of each of its images, in order; not checked here (`score_detections` does).
        protocol: "voc07" (11 points) or "voc10" (area).
        iou_threshold: minimum IoU of a match, greater than 0.

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
    """The `Matching` of detections and objects under the VOC rules; arguments as of `evaluate_voc`."""
    objects, first = [], 0
    for record, found in zip(dataset, detections, strict=True):
        local = _match(record, found, iou_threshold)
        objects.append(np.where(local >= 0, local + first, -1))
        first += len(record.class_ids)
    objects = concatenated(objects, np.int64)
    ignored = concatenated([record.difficult | record.crowd for record in dataset], bool)
    counts = objects < 0
    counts[~counts] = ~ignored[objects[~counts]]
    true = first_matches(objects, scores_of(detections)) & counts
    return matching_of(dataset, detections, objects, true, counts, _file_positions(detections))


def _file_positions(detections):
    """The positions of all detections in their file, which the kit sorts; None if they were not read from one."""
    if any(found.file_positions is None for found in detections):
        return None
    return concatenated([found.file_positions for found in detections], np.int64)


def _match(record, found, iou_threshold):
    """For each detection of an image, the object of its class with the highest IoU (the first of ties), or -1."""
    if not len(record.class_ids):
        return np.full(len(found.class_ids), -1)
    overlaps = boxes.iou(pixel_boxes(found.boxes, record), pixel_boxes(record.boxes, record))
    overlaps[found.class_ids[:, None] != record.class_ids] = -1.0
    best = overlaps.argmax(axis=1)
    return np.where(overlaps.max(axis=1) >= iou_threshold, best, -1)


def pixel_boxes(relative_boxes: np.ndarray, record: ImageRecord) -> np.ndarray:
    """Boxes `[N, 4]` of an image in pixels for computing IoUs: float64, rounded as by `round_pixels`."""
    pixels = boxes.scale(np.asarray(relative_boxes, np.float64), record.height, record.width)
    return round_pixels(pixels, relative_boxes.dtype)


def round_pixels(pixels: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Pixel coordinates without the rounding errors of the relative ones that they were computed from.

    Boxes on whole pixels, as in VOC, then have the same IoU as in the kit, and an IoU of exactly 0.5 is a match.

    Args:
        pixels: float64 `[...]`.
        dtype: type of the relative coordinates: float32 is exact to 0.001 pixel, float64 to 0.000000001 pixel.
    """
    return np.round(pixels, 9 if dtype == np.float64 else 3)
