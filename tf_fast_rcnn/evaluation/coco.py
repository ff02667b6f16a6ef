"""Average precision and recall of COCO, computed by pycocotools from `DetectionDataset` and `Detections`."""

from __future__ import annotations

import contextlib
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.records import CocoObjects
from tf_fast_rcnn.data.writers.coco_results import result_image_ids
from tf_fast_rcnn.evaluation.matching import concatenated, matching_of
from tf_fast_rcnn.evaluation.results import ClassResult, EvaluationResult
from tf_fast_rcnn.evaluation.voc import round_pixels

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections

# The number of detections per image and class that COCO's evaluation server scores.
MAX_DETECTIONS = 100
_SIZES = ("small", "medium", "large")


class _DifficultAwareEval(COCOeval):
    """COCOeval that ignores difficult objects; the base class overwrites 'ignore' with 'iscrowd'."""

    def _prepare(self):
        super()._prepare()
        for objects in self._gts.values():
            for annotation in objects:
                annotation["ignore"] = annotation["ignore"] or annotation["difficult"]


def evaluate_coco(
    dataset: DetectionDataset, detections: Sequence[Detections], max_detections: int = MAX_DETECTIONS
) -> EvaluationResult:
    """The COCO metrics: AP over IoU 0.50 to 0.95, AP50, AP75, AP by object size, and average recall.

    Small objects have an area below 32 x 32 pixels of the image file, large objects above 96 x 96. The area is that of
    the annotation if it has one (as in COCO), otherwise that of the box. Detections that match a difficult object or
    are inside a crowd are ignored. Detections with equal scores are in the order of their images' ids, as in
    pycocotools: that of numbers if all ids in COCO's results would be numbers, otherwise that of text.

    Args:
        dataset: `DetectionDataset`.
        detections: `Detections` of each of its images, in order; not checked here (`score_detections` does).
        max_detections: how many detections of each class count in an image, those with the highest scores.

    Returns:
        `EvaluationResult`: the `ap` of each class is averaged over the IoU thresholds; its curve is that at IoU 0.5,
        at the 101 recall levels of COCO.
    """
    ranks = _id_ranks(dataset)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth, numbers = _ground_truth(dataset, ranks)
        evaluation = _DifficultAwareEval(truth, _results(dataset, detections, ranks), "bbox")
        evaluation.params.maxDets = sorted(n for n in {1, 10, max_detections} if n <= max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    scored = _Scored(evaluation, max_detections)
    classes = [_class_result(scored, dataset, detections, label) for label in range(1, len(dataset.class_names) + 1)]
    matchings, beyond = _matchings(scored, dataset, detections, ranks, numbers)
    return EvaluationResult(
        "coco",
        None,
        len(dataset),
        tuple(classes),
        scored.metrics(),
        matchings=matchings,
        max_detections=max_detections,
        num_beyond=beyond,
    )


class _Scored:
    """What COCOeval has accumulated, for the detections that count."""

    def __init__(self, evaluation: COCOeval, max_detections: int) -> None:
        self.evaluation, self.max_detections = evaluation, max_detections
        self._limits = list(evaluation.params.maxDets)
        objects = evaluation.cocoGt.dataset["annotations"]
        self.num_objects = Counter(each["category_id"] for each in objects if not each["ignore"])

    def precision(self, size: str = "all") -> np.ndarray:
        """Precision at each IoU, recall level and class; -1 for classes without objects of the size."""
        return self._values("precision", size, self.max_detections)

    def scores(self) -> np.ndarray:
        """The score at each of these."""
        return self._values("scores", "all", self.max_detections)

    def metrics(self) -> dict[str, float]:
        """All metrics by name. AR_n is the recall of the n highest-scoring detections of each image and class."""
        precision, limit = self.precision(), self.max_detections
        metrics = {"AP": _mean(precision), "AP50": _mean(precision[:1]), "AP75": _mean(precision[5:6])}
        metrics |= {f"AP_{size}": _mean(self.precision(size)) for size in _SIZES}
        metrics |= {f"AR_{n}": _mean(self._values("recall", "all", n)) for n in self._limits}
        return metrics | {f"AR_{size}": _mean(self._values("recall", size, limit)) for size in _SIZES}

    def _values(self, name, size, limit):
        area = self.evaluation.params.areaRngLbl.index(size)
        return self.evaluation.eval[name][..., area, self._limits.index(limit)]


def _mean(values):
    """The mean of the defined values: COCOeval uses -1 for undefined ones."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else math.nan


def _id_ranks(dataset):
    """The position of each image in the order of the ids, int64 `[I]`; pycocotools sorts images by their ids."""
    ids = result_image_ids(dataset)
    keys = ids if all(isinstance(image_id, int) for image_id in ids) else list(map(str, ids))
    ranks = np.empty(len(ids), np.int64)
    ranks[sorted(range(len(ids)), key=keys.__getitem__)] = np.arange(len(ids))
    return ranks


def _index(dataset, annotations):
    """A `COCO` object, the index of images, categories and annotations in pycocotools."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": rank} for rank in range(len(dataset))],
        "categories": [{"id": label} for label in range(1, len(dataset.class_names) + 1)],
        # Ids start at 1 because COCOeval uses 0 for "not matched".
        "annotations": [{"id": number} | annotation for number, annotation in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco


def _annotations(rank, windows, labels, **columns):
    """One dict for each box of an image, with the COCO fields and those of `columns`."""
    return [
        {
            "image_id": int(rank),
            "category_id": int(label),
            "bbox": window.tolist(),
            "area": float(window[2] * window[3]),
            "iscrowd": 0,
        }
        | dict(zip(columns, values, strict=True))
        for window, label, *values in zip(windows, labels, *columns.values(), strict=True)
    ]


def _windows(relative_boxes, record):
    """COCO's x, y, width and height in pixels, rounded so that 32 x 32 pixels are exactly that."""
    windows = boxes.to_coco(np.asarray(relative_boxes, np.float64), record.height, record.width)
    return round_pixels(windows, relative_boxes.dtype)


def _coco_objects(record):
    """The `CocoObjects` of an image, from its boxes if it has none."""
    if record.coco_objects is not None:
        return record.coco_objects
    windows = _windows(record.boxes, record)
    areas = windows[:, 2] * windows[:, 3]
    if record.areas is not None:
        # Six decimals undo the rounding of relative areas, so an object of exactly 1024 pixels stays small.
        areas = np.round(record.areas * record.height * record.width, 6)
    return CocoObjects(windows, areas, record.class_ids, record.crowd, np.arange(len(windows)))


def _ground_truth(dataset, ranks):
    """The index of the objects, and for each of them its dataset-wide number, -1 if its box was dropped."""
    annotations, numbers, first = [], [], 0
    for rank, record in zip(ranks, dataset, strict=True):
        coco = _coco_objects(record)
        difficult = np.append(record.difficult, False)[coco.objects]  # False for -1, those dropped
        annotations += _annotations(
            rank,
            coco.windows,
            coco.class_ids,
            area=coco.areas,
            iscrowd=coco.crowd.astype(int),
            difficult=difficult.astype(int),
        )
        numbers.append(np.where(coco.objects < 0, -1, coco.objects + first))
        first += len(record.boxes)
    return _index(dataset, annotations), concatenated(numbers, np.int64)


def _results(dataset, detections, ranks):
    annotations = []
    for rank, record, found in zip(ranks, dataset, detections, strict=True):
        annotations += _annotations(rank, _windows(found.boxes, record), found.class_ids, score=found.scores)
    return _index(dataset, annotations)


def _matchings(scored, dataset, detections, ranks, numbers):
    """The `Matching` at each of the ten IoU thresholds, and the number of detections beyond those that count."""
    evaluation = scored.evaluation
    total = sum(len(found.scores) for found in detections)
    shape = (len(evaluation.params.iouThrs), total)
    objects, counts, num_beyond = np.full(shape, -1), np.zeros(shape, bool), 0
    numbers = np.concatenate([[-1], numbers])  # dtMatches has 0 for "not matched" and ids from 1
    all_areas = evaluation.params.areaRng[0]
    for image in evaluation.evalImgs:
        if image is not None and image["aRng"] == all_areas and image["dtIds"]:
            places = np.array(image["dtIds"]) - 1
            objects[:, places] = numbers[image["dtMatches"].astype(int)]
            # A match with an object whose box was dropped does not count: the dataset does not have the object.
            dropped = (image["dtMatches"] > 0) & (objects[:, places] < 0)
            counts[:, places] = ~image["dtIgnore"].astype(bool) & ~dropped
            places, matches = _beyond(evaluation, image)
            objects[:, places] = numbers[matches]
            num_beyond += len(places)
    images = np.repeat(ranks, [len(found.scores) for found in detections])
    order = np.empty(total, np.int64)
    order[np.argsort(images, kind="stable")] = np.arange(total)
    columns = [(found, (found >= 0) & counting, counting) for found, counting in zip(objects, counts, strict=True)]
    return tuple(matching_of(dataset, detections, *each, order) for each in columns), num_beyond


def _beyond(evaluation, image):
    """The detections of a class in an image beyond those that count, by decreasing score, and what they would match.

    Returns:
        Their positions among all detections, int64 `[D]`, and at each IoU threshold the ids of the objects, int64
        `[T, D]`, 0 for none.
    """
    key = image["image_id"], image["category_id"]
    beyond = sorted(evaluation._dts[key], key=lambda each: -each["score"])[image["maxDet"] :]
    places = np.array([each["id"] - 1 for each in beyond], np.int64)
    matches = np.zeros((len(evaluation.params.iouThrs), len(beyond)), np.int64)
    if len(beyond) and image["gtIds"]:
        truth = evaluation.cocoGt.loadAnns(image["gtIds"])
        windows = [[each["bbox"] for each in some] for some in (beyond, truth)]
        ids, thresholds = np.array(image["gtIds"]), evaluation.params.iouThrs
        free, rows = image["gtMatches"] == 0, np.arange(len(thresholds))
        for place, overlaps in enumerate(mask.iou(*windows, [each["iscrowd"] for each in truth])):
            allowed = np.where(free, overlaps, -1.0)
            best = allowed.argmax(axis=1)
            hit = allowed[rows, best] >= np.minimum(thresholds, 1 - 1e-10)
            matches[hit, place] = ids[best[hit]]
            free[rows[hit], best[hit]] = False
    return places, matches


def _class_result(scored, dataset, detections, label):
    precision, scores = scored.precision()[:, :, label - 1], scored.scores()[0, :, label - 1]
    exists = precision[0, 0] >= 0
    recall = scored.evaluation.params.recThrs
    return ClassResult(
        dataset.class_names[label - 1],
        float(precision.mean()) if exists else math.nan,
        precision[0] if exists else np.zeros(0),
        recall if exists else np.zeros(0),
        (scores if exists else np.zeros(0)).astype(np.float32),
        num_objects=scored.num_objects[label],
        num_detections=sum(np.count_nonzero(found.class_ids == label) for found in detections),
    )
