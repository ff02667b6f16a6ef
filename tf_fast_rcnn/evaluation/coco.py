"""Average precision and recall of COCO, computed by pycocotools from `DetectionDataset` and `Detections`."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_fast_rcnn import boxes
from tf_fast_rcnn.evaluation.matching import matching_of
from tf_fast_rcnn.evaluation.results import ClassResult, EvaluationResult

if TYPE_CHECKING:
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import DetectionDataset

# In the order of COCOeval.stats. AR_n is the recall of the n highest-scoring detections of each image.
_METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


class _DifficultAwareEval(COCOeval):
    """COCOeval that ignores difficult objects; the base class overwrites 'ignore' with 'iscrowd'."""

    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for annotation in objects:
                annotation["ignore"] = annotation["ignore"] or annotation["difficult"]


def evaluate_coco(dataset: DetectionDataset, detections: Sequence[Detections]) -> EvaluationResult:
    """The COCO metrics: AP over IoU 0.50 to 0.95, AP50, AP75, AP by object size, and average recall.

    Small objects have an area below 32 x 32 pixels of the image file, large objects above 96 x 96. The area is that of
    the annotation if it has one (as in COCO), otherwise that of the box. Detections that match a difficult object or
    are inside a crowd are ignored.

    Args:
        dataset: `DetectionDataset`.
        detections: `Detections` of each of its images, in order; not checked here (`score_detections` does).

    Returns:
        `EvaluationResult`: the `ap` of each class is averaged over the IoU thresholds; its curve is that at IoU 0.5,
        at the 101 recall levels of COCO.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = _DifficultAwareEval(_ground_truth(dataset), _results(dataset, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = {name: _or_nan(value) for name, value in zip(_METRICS, evaluation.stats, strict=True)}
    classes = [
        _class_result(evaluation, dataset, detections, label) for label in range(1, len(dataset.class_names) + 1)
    ]
    matchings = tuple(_matchings(evaluation, dataset, detections))
    return EvaluationResult("coco", None, len(dataset), tuple(classes), metrics, matchings=matchings)


def _or_nan(value):
    """COCOeval uses -1 for undefined metrics."""
    return math.nan if value < 0 else float(value)


def _index(dataset, annotations):
    """A `COCO` object, the index of images, categories and annotations in pycocotools."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": position} for position in range(len(dataset))],
        "categories": [{"id": label} for label in range(1, len(dataset.class_names) + 1)],
        # Ids start at 1 because COCOeval uses 0 for "not matched".
        "annotations": [{"id": number} | annotation for number, annotation in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco


def _annotations(position, record, relative_boxes, labels, **columns):
    """One dict for each box of an image, with the COCO fields and those of `columns`."""
    # COCO boxes have two decimals. Three decimals undo the float32 rounding, so 32 x 32 pixels stay exactly that.
    windows = np.round(boxes.to_coco(np.asarray(relative_boxes, np.float64), record.height, record.width), 3)
    return [
        {
            "image_id": position,
            "category_id": int(label),
            "bbox": window.tolist(),
            "area": float(window[2] * window[3]),
            "iscrowd": 0,
        }
        | dict(zip(columns, values, strict=True))
        for window, label, *values in zip(windows, labels, *columns.values(), strict=True)
    ]


def _areas(record):
    """The column of annotated object areas in pixels, if the annotations have them."""
    if record.areas is None:
        return {}
    # Two decimals undo the float32 rounding of relative areas, so an object of exactly 1024 pixels stays small.
    return {"area": np.round(record.areas.astype(float) * record.height * record.width, 2)}


def _ground_truth(dataset):
    annotations = []
    for position, record in enumerate(dataset):
        annotations += _annotations(
            position,
            record,
            record.boxes,
            record.class_ids,
            difficult=record.difficult.astype(int),
            iscrowd=record.crowd.astype(int),
            **_areas(record),
        )
    return _index(dataset, annotations)


def _results(dataset, detections):
    annotations = []
    for position, (record, found) in enumerate(zip(dataset, detections, strict=True)):
        annotations += _annotations(position, record, found.boxes, found.class_ids, score=found.scores)
    return _index(dataset, annotations)


def _matchings(evaluation, dataset, detections):
    """Yields the `Matching` at each of the ten IoU thresholds. Ids of objects and detections are dataset-wide."""
    shape = (len(evaluation.params.iouThrs), sum(len(found.scores) for found in detections))
    # Detections beyond the 100 best of a class and image keep these values: they do not count.
    objects, counts = np.full(shape, -1), np.zeros(shape, bool)
    all_areas = evaluation.params.areaRng[0]
    for image in evaluation.evalImgs:
        if image is not None and image["aRng"] == all_areas and image["dtIds"]:
            places = np.array(image["dtIds"]) - 1
            objects[:, places] = image["dtMatches"].astype(int) - 1
            counts[:, places] = ~image["dtIgnore"].astype(bool)
    for of_overlap, counting in zip(objects, counts, strict=True):
        yield matching_of(dataset, detections, of_overlap, (of_overlap >= 0) & counting, counting)


def _class_result(evaluation, dataset, detections, label):
    # precision [IoU, recall, class, area range, maximum number of detections]: all areas, 100 detections.
    precision = evaluation.eval["precision"][:, :, label - 1, 0, -1]
    scores = evaluation.eval["scores"][0, :, label - 1, 0, -1]
    exists = precision[0, 0] >= 0
    recall = evaluation.params.recThrs
    return ClassResult(
        dataset.class_names[label - 1],
        float(precision.mean()) if exists else math.nan,
        precision[0] if exists else np.zeros(0),
        recall if exists else np.zeros(0),
        (scores if exists else np.zeros(0)).astype(np.float32),
        num_objects=sum(
            np.count_nonzero((record.class_ids == label) & ~record.difficult & ~record.crowd) for record in dataset
        ),
        num_detections=sum(np.count_nonzero(found.class_ids == label) for found in detections),
    )
