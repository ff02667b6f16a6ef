"""Evaluation of detections: PASCAL VOC's average precision and COCO's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.results import ClassResult, EvaluationResult

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset

__all__ = ["PROTOCOLS", "ClassResult", "EvaluationResult", "annotations_of", "score_detections"]

PROTOCOLS = ("voc07", "voc10", "coco")


def score_detections(
    dataset: DetectionDataset, detections: Sequence[Detections], protocol: str = "voc07", iou_threshold: float = 0.5
) -> EvaluationResult:
    """Scores detections against a data set's objects.

    Args:
        dataset: `DetectionDataset`.
        detections: sequence of `Detections`, one for each record in the data set's order; relative boxes.
        protocol: "voc07" (11 points), "voc10" (area under the curve) or "coco".
        iou_threshold: smallest overlap of a match, for the VOC protocols (COCO has its own ten).

    Returns:
        `EvaluationResult`.

    Raises:
        InputError: if a protocol is unknown, images are missing or too many, scores are not finite, classes are
            unknown, or boxes are malformed, reversed or in pixels.

    Example:
        >>> result = score_detections(test, detections, "voc10")        # doctest: +SKIP
        >>> print(result.table())                                       # doctest: +SKIP
    """
    detections = [found if isinstance(found, Detections) else Detections(*found) for found in detections]
    score = _scorer(protocol, iou_threshold)
    if len(detections) != len(dataset):
        raise InputError(
            f"detections of {dataset.name}: found those of {len(detections)} images; expected {len(dataset)}, one "
            "entry for each image in order; give an empty one where nothing was detected"
        )
    dataset = annotations_of(dataset)
    for record, found in zip(dataset, detections, strict=True):
        _check(f"detections of image {record.image_id}", found, len(dataset.class_names))
    return score(dataset, detections)


def annotations_of(dataset: DetectionDataset) -> DetectionDataset:
    """The data set without pixels and proposals, in memory: scoring looks at its objects more than once."""
    return dataset.with_records(
        [dataclasses.replace(record, image_bytes=None, proposal_boxes=None) for record in dataset]
    )


def _scorer(protocol, iou_threshold):
    if not 0.0 < iou_threshold <= 1.0:
        raise InputError(f"iou_threshold: found {iou_threshold}; expected a number above 0, at most 1; 0.5 is usual")
    if protocol in ("voc07", "voc10"):
        from tf_fast_rcnn.evaluation.voc import evaluate_voc

        return functools.partial(evaluate_voc, protocol=protocol, iou_threshold=iou_threshold)
    if protocol == "coco":
        from tf_fast_rcnn.evaluation.coco import evaluate_coco

        return evaluate_coco
    raise InputError(f"protocol: found {protocol!r}; expected one of {', '.join(PROTOCOLS)}; choose one of them")


def _check(where, found, num_classes):
    """Raises an InputError for the first thing that is wrong with an image's detections."""
    boxes, scores, classes = found.boxes, found.scores, found.class_ids
    if boxes.shape != (len(scores), 4) or classes.shape != scores.shape or scores.ndim != 1:
        raise InputError(
            f"{where}: found boxes {list(boxes.shape)}, scores {list(scores.shape)}, classes {list(classes.shape)}; "
            "expected [D, 4], [D] and [D]; give one of each for every detection"
        )
    _refuse(where, ~np.isfinite(scores), scores, "score", "finite scores", "look for a diverged model")
    _refuse(
        where, (classes < 1) | (classes > num_classes), classes, "class", f"1..{num_classes}", "use one list of classes"
    )
    _refuse(where, ~np.isfinite(boxes).all(axis=-1), boxes, "box", "finite boxes", "look for a diverged model")
    reversed_box = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    _refuse(where, reversed_box, boxes, "box", "[ymin, xmin, ymax, xmax]", "put the corners in this order")
    # Detections may stick out of an image a little; twice its size is another unit.
    in_pixels = np.abs(boxes).max(axis=-1, initial=0.0) > 2.0
    _refuse(where, in_pixels, boxes, "box", "0 to 1, relative to the image", "divide by the image's height and width")


def _refuse(where, bad, values, what, expected, remedy):
    if bad.any():
        position = int(bad.argmax())
        raise InputError(f"{where}: found {what} {values[position]} at {position}; expected {expected}; {remedy}")
