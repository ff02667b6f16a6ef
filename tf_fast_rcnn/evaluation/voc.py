"""PASCAL VOC average precision by the rules of the development kit (VOCevaldet.m, VOCap.m).

Detections of a class are taken by falling score over the whole data set. Each is held against the one object of its
class and image that it overlaps most. Where that overlap reaches the threshold, a difficult object makes the
detection count for nothing, an object not found before makes it a true positive, and one found before (a duplicate)
a false positive, even if it overlaps another object well enough. Everything else is a false positive. Crowds, which
VOC does not have, are taken as difficult objects.
"""

import math

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.evaluation.results import ClassResult, EvaluationResult


def eleven_point_ap(recall, precision):
    """VOC 2007's AP: the mean over the recalls 0, 0.1, ... 1 of the best precision at that recall or a higher one.

    Args:
        recall, precision: float64 `[N]`, recall not falling.

    Example:
        >>> float(eleven_point_ap(np.array([0.5, 1.0]), np.array([1.0, 1.0])))
        1.0
    """
    # k / 10 and not 0.1 * k: a recall of 3 objects in 10 is then exactly the fourth threshold.
    levels = np.arange(11) / 10
    best = np.append(_best_precision_from(precision), 0.0)
    return best[np.searchsorted(recall, levels, side="left")].mean()


def area_ap(recall, precision):
    """VOC 2010's AP: the area under the curve of the best precision at each recall or a higher one.

    Args:
        recall, precision: float64 `[N]`, recall not falling.

    Example:
        >>> round(float(area_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))), 4)
        0.8333
    """
    return (np.diff(recall, prepend=0.0) * _best_precision_from(precision)).sum()


_AVERAGE_PRECISION = {"voc07": eleven_point_ap, "voc10": area_ap}


def evaluate_voc(dataset, detections, protocol="voc07", iou_threshold=0.5):
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
    matched_objects = _match_all(dataset, detections, iou_threshold)
    classes = _concatenate([found.classes for found in detections], np.int32)
    scores = _concatenate([found.scores for found in detections], np.float32)
    labels = _concatenate([record.labels for record in dataset], np.int32)
    difficult = _concatenate([record.difficult | record.crowd for record in dataset], bool)

    def class_result(label, name):
        of_class = classes == label
        num_objects = np.count_nonzero((labels == label) & ~difficult)
        curve = _precision_recall(scores[of_class], matched_objects[of_class], difficult, num_objects)
        ap = _AVERAGE_PRECISION[protocol](curve["recall"], curve["precision"]) if num_objects else math.nan
        return ClassResult(name, float(ap), **curve, num_objects=num_objects, num_detections=of_class.sum())

    results = [class_result(label, name) for label, name in enumerate(dataset.class_names, start=1)]
    return EvaluationResult(protocol, iou_threshold, len(dataset), tuple(results))


def _best_precision_from(precision):
    """The best precision at each point of the curve or after it."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _concatenate(arrays, dtype):
    return np.concatenate([np.zeros(0, dtype), *arrays])


def _match_all(dataset, detections, iou_threshold):
    """For each detection of the data set, the number of the object that it matches (counted through), or -1."""
    matches, first = [], 0
    for record, found in zip(dataset, detections, strict=True):
        local = _match(record, found, iou_threshold)
        matches.append(np.where(local >= 0, local + first, -1))
        first += len(record.labels)
    return _concatenate(matches, np.int64)


def _match(record, found, iou_threshold):
    """For each detection of an image, the object of its class with the largest overlap (the first of equal ones)."""
    if not len(record.labels):
        return np.full(len(found.classes), -1)
    overlaps = boxes.iou(_pixels(found.boxes, record), _pixels(record.boxes, record))
    overlaps[found.classes[:, None] != record.labels] = -1.0
    best = overlaps.argmax(axis=1)
    return np.where(overlaps.max(axis=1) >= iou_threshold, best, -1)


def _pixels(relative_boxes, record):
    # Thousandths of a pixel undo float32's rounding of relative edges: boxes on whole pixels, as VOC's are, get the
    # overlap that the kit computes, and an overlap of exactly 0.5 is one.
    return np.round(boxes.scale(np.asarray(relative_boxes, np.float64), record.height, record.width), 3)


def _precision_recall(scores, matched_objects, difficult, num_objects):
    """The curve of one class: precision, recall and score after each detection that counts, by falling score."""
    order = np.argsort(-scores, kind="stable")
    scores, matched_objects = scores[order], matched_objects[order]
    matched = matched_objects >= 0
    counts = ~matched
    counts[matched] = ~difficult[matched_objects[matched]]
    scores, matched_objects = scores[counts], matched_objects[counts]
    hits = np.cumsum(_first_matches(matched_objects))
    return {
        "precision": hits / np.arange(1, len(hits) + 1),
        "recall": hits / max(num_objects, 1),
        "scores": scores,
    }


def _first_matches(matched_objects):
    """Which detections are the first to match their object: bool `[N]`."""
    matched = np.flatnonzero(matched_objects >= 0)
    _, first = np.unique(matched_objects[matched], return_index=True)
    is_first = np.zeros(len(matched_objects), bool)
    is_first[matched[first]] = True
    return is_first
