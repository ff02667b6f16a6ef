"""Evaluation of detections with the average precision of PASCAL VOC and of COCO."""

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
    from tf_fast_rcnn.data.datasets import DetectionDataset

__all__ = ["PROTOCOLS", "ClassResult", "EvaluationResult", "annotations_of", "score_detections"]

PROTOCOLS = ("voc07", "voc10", "coco")


def score_detections(
    dataset: DetectionDataset,
    detections: Sequence[Detections],
    protocol: str = "voc07",
    iou_threshold: float = 0.5,
    max_detections: int | None = None,
) -> EvaluationResult:
    """Scores detections against the ground truth of a dataset.

    Args:
        dataset: `DetectionDataset`.
        detections: sequence of `Detections` with relative boxes, one per image in the order of the dataset.
        protocol: "voc07" (11 points), "voc10" (area under the curve) or "coco".
        iou_threshold: minimum IoU of a match under the VOC protocols (COCO uses ten fixed thresholds).
        max_detections: how many detections of each class count in an image under "coco"; None for COCO's 100. All
            detections count under the VOC protocols.

    Returns:
        `EvaluationResult`.

    Raises:
        InputError: if the protocol is unknown, `max_detections` is not positive, the number of images differs from the
            dataset's, scores are not finite, class ids are out of range, or boxes are malformed, reversed or in pixels.

    Example:
        >>> result = score_detections(test, detections, "voc10")        # doctest: +SKIP
        >>> print(result.table())                                       # doctest: +SKIP
    """
    detections = [found if isinstance(found, Detections) else Detections(*found) for found in detections]
    score = _scorer(protocol, iou_threshold, max_detections)
    if len(detections) != len(dataset):
        raise InputError(
            f"detections of {dataset.name}: found {len(detections)} entries; expected {len(dataset)}, one per image in "
            "the order of the dataset; add an empty entry for each image without detections"
        )
    dataset = annotations_of(dataset)
    for record, found in zip(dataset, detections, strict=True):
        _check(f"detections of image {record.image_id}", found, len(dataset.class_names))
    return score(dataset, detections)


def annotations_of(dataset: DetectionDataset) -> DetectionDataset:
    """The dataset in memory, without images and proposals, because scoring iterates over the objects repeatedly."""
    return dataset.with_records(
        [dataclasses.replace(record, image_bytes=None, proposal_boxes=None) for record in dataset]
    )


def _scorer(protocol, iou_threshold, max_detections):
    if max_detections is not None and max_detections < 1:
        raise InputError(f"max_detections: found {max_detections}; expected a whole number from 1; COCO's is 100")
    if not 0.0 < iou_threshold <= 1.0:
        raise InputError(
            f"iou_threshold: found {iou_threshold}; expected a number greater than 0 and at most 1; 0.5 is usual"
        )
    if protocol in ("voc07", "voc10"):
        from tf_fast_rcnn.evaluation.voc import evaluate_voc

        return functools.partial(evaluate_voc, protocol=protocol, iou_threshold=iou_threshold)
    if protocol == "coco":
        from tf_fast_rcnn.evaluation.coco import MAX_DETECTIONS, evaluate_coco

        return functools.partial(evaluate_coco, max_detections=max_detections or MAX_DETECTIONS)
    raise InputError(f"protocol: found {protocol!r}; expected one of {', '.join(PROTOCOLS)}; choose one of them")


def _check(where, found, num_classes):
    """Raises an InputError for the first problem in an image's detections."""
    boxes, scores, classes = found.boxes, found.scores, found.class_ids
    if boxes.shape != (len(scores), 4) or classes.shape != scores.shape or scores.ndim != 1:
        raise InputError(
            f"{where}: found boxes {list(boxes.shape)}, scores {list(scores.shape)}, classes {list(classes.shape)}; "
            "expected [D, 4], [D] and [D]; pass one box, score and class per detection"
        )
    _refuse(where, ~np.isfinite(scores), scores, "score", "finite scores", "check whether the model diverged")
    unknown = (classes < 1) | (classes > num_classes)
    _refuse(where, unknown, classes, "class", f"1..{num_classes}", "use the class ids of the dataset")
    _refuse(where, ~np.isfinite(boxes).all(axis=-1), boxes, "box", "finite boxes", "check whether the model diverged")
    reversed_box = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    _refuse(where, reversed_box, boxes, "box", "[ymin, xmin, ymax, xmax]", "reorder the coordinates")
    # Detections may extend slightly beyond the image; a coordinate above 2 means a different unit.
    in_pixels = np.abs(boxes).max(axis=-1, initial=0.0) > 2.0
    _refuse(where, in_pixels, boxes, "box", "0 to 1, relative to the image", "divide by the image height and width")


def _refuse(where, bad, values, what, expected, remedy):
    if bad.any():
        position = int(bad.argmax())
        raise InputError(f"{where}: found {what} {values[position]} at {position}; expected {expected}; {remedy}")
