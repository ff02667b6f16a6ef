"""Collects the findings and statistics of a dataset in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.browsing.duplicates import DuplicateImages
from tf_fast_rcnn.browsing.findings import (
    KINDS,
    Finding,
    ObjectMeasures,
    box_findings,
    class_findings,
    measure_objects,
    missed_findings,
)
from tf_fast_rcnn.data.proposals.recall import RecallCurves, best_overlaps, recall, recall_curves
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset


class ImageFacts(NamedTuple):
    """The findings and measurements of one image.

    Attributes:
        index: its index in the dataset.
        record: its `ImageRecord`.
        findings: list of `Finding` about this image only.
        measures: `ObjectMeasures` of its objects.
        best_boxes: float32 `[G, 4]`, the best proposal of each object, relative; zeros if the image has no proposals;
            None if the dataset has none.
        overlaps: float32 `[G]`, the IoU of these; None if the dataset has no proposals.
        num_proposals: number of proposals.
    """

    index: int  # type: ignore[assignment]  # a tuple's own `index` is not used
    record: ImageRecord
    findings: list
    measures: ObjectMeasures
    best_boxes: np.ndarray | None
    overlaps: np.ndarray | None
    num_proposals: int


class ClassSummary(NamedTuple):
    """Statistics of one class; `median_size` and `recall` are None if there is nothing to measure."""

    label: int
    name: str
    objects: int
    images: int
    difficult: int
    crowd: int
    median_size: float | None
    recall: float | None


class Survey(NamedTuple):
    """The findings and statistics of a dataset.

    Attributes:
        findings: dict from kind (all keys of `KINDS`) to a list of `Finding`.
        classes: the `ClassSummary` of each class 1..K.
        measures: `ObjectMeasures` of all objects.
        objects_per_image: int64 `[N]`.
        image_names: the ids of the images.
        recall: `RecallCurves`, or None without proposals.
        proposals_per_image: int64 `[N]`; empty without proposals.
    """

    findings: dict
    classes: list
    measures: ObjectMeasures
    objects_per_image: np.ndarray
    image_names: list
    recall: RecallCurves | None
    proposals_per_image: np.ndarray


def survey_dataset(
    dataset: DetectionDataset,
    skip_bad: bool = False,
    progress: bool = True,
    draw: Callable[[ImageFacts, np.ndarray], None] | None = None,
) -> Survey:
    """Reads every image once and collects likely errors.

    Args:
        dataset: the dataset; if it has proposals, their recall is measured.
        skip_bad: list unreadable images instead of raising an error.
        progress: whether to show a progress bar on standard error.
        draw: function that is called with the `ImageFacts` of each readable image, and its pixels, uint8 `[H, W, 3]`.

    Returns:
        The `Survey`.

    Raises:
        InputError: without `skip_bad`, for the first image that cannot be read.
    """
    duplicates = DuplicateImages()
    findings, names, measures, overlaps, counts = [], [], [], [], []
    for index, record in enumerate(tqdm(dataset, "images", unit="image", disable=not progress)):
        facts = _image_facts(index, record, dataset)
        names.append(record.image_id)
        measures.append(facts.measures)
        findings += facts.findings
        if facts.overlaps is not None:
            overlaps.append(facts.overlaps)
            counts.append(facts.num_proposals)
        try:
            image = record.image()
        except InputError as error:
            if not skip_bad:
                raise
            findings.append(Finding("unreadable_images", str(error), (index,)))
            continue
        duplicates.add(index, image)
        if draw is not None:
            draw(facts, image)
    classes = _class_summaries(dataset.class_names, measures, overlaps)
    findings += class_findings({each.name: each.objects for each in classes})
    findings += _duplicate_findings(duplicates)
    return Survey(
        findings={kind: [finding for finding in findings if finding.kind == kind] for kind in KINDS},
        classes=classes,
        measures=_joined(measures),
        objects_per_image=np.array([len(of_image.class_ids) for of_image in measures], np.int64),
        image_names=names,
        recall=recall_curves(dataset, counts=_steps(max(counts))) if counts else None,
        proposals_per_image=np.array(counts, np.int64),
    )


def _image_facts(index, record, dataset):
    findings = box_findings(index, record, dataset.class_names)
    measures = measure_objects(record)
    if dataset.proposals is None:
        return ImageFacts(index, record, findings, measures, None, None, 0)
    proposals, best = record.proposals(), best_overlaps(record)
    best_boxes = proposals[best.index] if len(proposals) else np.zeros_like(record.boxes)
    missed = missed_findings(index, record, dataset.class_names, best.iou)
    return ImageFacts(index, record, findings + missed, measures, best_boxes, best.iou, len(proposals))


def _steps(last):
    """1, 3, 10, 30, ... and `last`."""
    powers = [step * 10**power for power in range(len(str(last))) for step in (1, 3)]
    return (*(step for step in powers if step < last), last)


def _duplicate_findings(duplicates):
    groups = [("identical_images", group) for group in duplicates.identical()]
    groups += [("similar_images", group) for group in duplicates.similar()]
    return [Finding(kind, f"{len(group)} images", group) for kind, group in groups]


def _class_summaries(class_names, measures, overlaps):
    joined = _joined(measures)
    images = np.bincount(
        np.concatenate([np.zeros(0, np.int32), *(np.unique(of_image.class_ids) for of_image in measures)]),
        minlength=len(class_names) + 1,
    )
    best = np.concatenate(overlaps) if overlaps else None
    summaries = []
    for label, name in enumerate(class_names, start=1):
        mine = joined.class_ids == label
        counted = mine & ~joined.crowd
        summaries.append(
            ClassSummary(
                label=label,
                name=name,
                objects=int(mine.sum()),
                images=int(images[label]),
                difficult=int((mine & joined.difficult).sum()),
                crowd=int((mine & joined.crowd).sum()),
                median_size=float(np.median(joined.sizes[mine])) if mine.any() else None,
                recall=recall(best[counted]) if best is not None and counted.any() else None,
            )
        )
    return summaries


def _joined(measures):
    """The objects of all images together; empty arrays if there are no images."""
    if not measures:
        return ObjectMeasures(*(np.zeros(0, kind) for kind in ("i4", "f4", "f4", "f4", "?", "?")))
    return ObjectMeasures(*map(np.concatenate, zip(*measures, strict=True)))
