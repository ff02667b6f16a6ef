"""What an evaluation reports in addition to average precision: error types, calibration, confusion, proposals.

Calibration: 80 % of the detections with a score of 0.8 should be correct. Reliability curves and the expected
calibration error are those of M. P. Naeini, G. F. Cooper and M. Hauskrecht (AAAI 2015) and C. Guo and others, "On
Calibration of Modern Neural Networks" (ICML 2017, section 2). As in F. Küppers and others (CVPR workshops 2020),
precision replaces accuracy for detectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.proposals.recall import class_best_overlaps, recall
from tf_fast_rcnn.evaluation import annotations_of
from tf_fast_rcnn.evaluation.breakdown import KINDS, Breakdown, break_down
from tf_fast_rcnn.evaluation.results import json_number
from tf_fast_rcnn.evaluation.voc import pixel_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.evaluation.matching import Matching
    from tf_fast_rcnn.evaluation.results import EvaluationResult


# Number of score bins of a reliability curve.
BINS = 10


class Reliability(NamedTuple):
    """Precision of the detections as a function of their score, in ten equal score bins.

    Attributes:
        counts: int64 `[10]`, number of detections in each bin; a bin excludes its lower edge and includes its upper.
        scores: float64 `[10]`, their mean score; NaN for an empty bin.
        precisions: float64 `[10]`, the fraction of true positives; NaN for an empty bin.
        error: the expected calibration error: the mean of |precision - score| over the bins, weighted by their
            counts; NaN without detections.
    """

    counts: np.ndarray
    scores: np.ndarray
    precisions: np.ndarray
    error: float

    def to_json(self) -> dict[str, Any]:
        """A dict for `json.dump`."""
        return {
            "error": json_number(self.error),
            "counts": self.counts.tolist(),
            "scores": list(map(json_number, self.scores)),
            "precisions": list(map(json_number, self.precisions)),
        }


class ProposalQuality(NamedTuple):
    """How well the proposals cover the objects, excluding crowds. The detector cannot find objects that they miss.

    Attributes:
        recalls: for each class the fraction of objects that a proposal covers with an IoU of at least 0.5; NaN for a
            class without objects.
        average_best_overlaps: for each class the mean over its objects of the best IoU with a proposal (ABO); NaN for
            a class without objects.
        recall: recall over all objects.
        mean_average_best_overlap: mean of the ABO of the classes (MABO).
    """

    recalls: list
    average_best_overlaps: list
    recall: float
    mean_average_best_overlap: float


class Analysis(NamedTuple):
    """Result of `analyse`.

    Attributes:
        class_names: names of the classes 1..K.
        breakdown: `Breakdown` of the errors.
        calibration: `Reliability` of all scores; None if the scores are not probabilities.
        class_calibration: the same for each class.
        confusion: int64 `[K + 1, K + 1]`, see `confusion_matrix`.
        proposals: `ProposalQuality`; None if the dataset has no proposals.
    """

    class_names: tuple
    breakdown: Breakdown
    calibration: Reliability | None
    class_calibration: list
    confusion: np.ndarray
    proposals: ProposalQuality | None

    def to_json(self) -> dict[str, Any]:
        """A dict for `json.dump`; docs/evaluation.md describes its keys."""
        names = self.class_names
        calibration = None
        if self.calibration is not None:
            of_classes = {name: each.to_json() for name, each in zip(names, self.class_calibration, strict=True)}
            calibration = self.calibration.to_json() | {"classes": of_classes}
        return {
            "breakdown": self.breakdown.to_json(names),
            "calibration": calibration,
            "confusion": {"classes": [*names, None], "counts": self.confusion.tolist()},
            "proposals": None if self.proposals is None else _proposals_to_json(names, self.proposals),
        }

    def text(self) -> str:
        """A readable summary of at most three lines."""
        gains = sorted(KINDS, key=lambda kind: -self.breakdown.gains[kind])
        lines = []
        if not np.isnan(self.breakdown.mean_ap):
            gained = ", ".join(f"{kind} +{self.breakdown.gains[kind]:.3f}" for kind in gains)
            lines.append(f"gain in mean AP from fixing each type of error: {gained}")
        if self.calibration is not None and not np.isnan(self.calibration.error):
            lines.append(f"calibration error of the scores: {self.calibration.error:.3f}")
        if self.proposals is not None and not np.isnan(self.proposals.recall):
            lines.append(
                f"proposals: recall {self.proposals.recall:.3f} at IoU 0.5, mean average best overlap "
                f"{self.proposals.mean_average_best_overlap:.3f}"
            )
        return "\n".join(lines)


def analyse(dataset: DetectionDataset, detections: Sequence[Detections], result: EvaluationResult) -> Analysis:
    """Analyses the errors behind the metrics of an evaluation.

    Args:
        dataset: the `DetectionDataset` that was evaluated; its proposals are analysed if it has any.
        detections: its `Detections`, in order.
        result: the `EvaluationResult` that `score_detections` returned for them.

    Returns:
        `Analysis`.

    Example:
        >>> analysis = analyse(test, detections, score_detections(test, detections))    # doctest: +SKIP
        >>> print(analysis.text())                                                      # doctest: +SKIP
    """
    annotated = annotations_of(dataset)
    matching, labels = result.matchings[0], range(1, len(dataset.class_names) + 1)
    return Analysis(
        class_names=dataset.class_names,
        breakdown=break_down(annotated, detections, result),
        calibration=reliability(matching),
        class_calibration=[reliability(matching, label) for label in labels],
        confusion=confusion_matrix(annotated, detections),
        proposals=None if dataset.proposals is None else proposal_quality(dataset),
    )


def reliability(matching: Matching, label: int | None = None) -> Reliability | None:
    """The `Reliability` of the scores of a `Matching`.

    Args:
        matching: the `Matching` at one IoU threshold; detections of difficult objects and crowds do not count.
        label: a class, 1..K; None for all classes together.

    Returns:
        `Reliability`; None if scores are outside 0 to 1 and therefore not probabilities.

    Example:
        >>> reliability(result.matchings[0]).error                              # doctest: +SKIP
        0.034
    """
    chosen = matching.counts if label is None else matching.counts & (matching.class_ids == label)
    scores, true = matching.scores[chosen].astype(np.float64), matching.true[chosen]
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        return None
    bins = np.searchsorted(np.arange(1, BINS) / BINS, scores)
    counts, sums, hits = (np.bincount(bins, weights, BINS) for weights in (None, scores, true))
    with np.errstate(invalid="ignore"):  # bins without detections are 0 / 0
        means, precisions = sums / counts, hits / counts
    error = np.abs(hits - sums).sum() / len(scores) if len(scores) else np.nan
    return Reliability(counts, means, precisions, float(error))


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
        _count_confusions(matrix, overlaps, found.class_ids[order], record, iou_threshold)
    return matrix


def _count_confusions(matrix, overlaps, classes, record, iou_threshold):
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


def proposal_quality(dataset: DetectionDataset) -> ProposalQuality:
    """`ProposalQuality` of a dataset with proposals."""
    overlaps = list(class_best_overlaps(dataset, dataset.class_names).values())
    averages = [float(of_class.mean()) if len(of_class) else float("nan") for of_class in overlaps]
    return ProposalQuality(
        recalls=[recall(of_class) for of_class in overlaps],
        average_best_overlaps=averages,
        recall=recall(np.concatenate(overlaps)),
        mean_average_best_overlap=float(np.nanmean(averages)) if not np.isnan(averages).all() else float("nan"),
    )


def _proposals_to_json(class_names, quality):
    rows = zip(class_names, quality.recalls, quality.average_best_overlaps, strict=True)
    return {
        "recall": json_number(quality.recall),
        "mean_average_best_overlap": json_number(quality.mean_average_best_overlap),
        "classes": {
            name: {"recall": json_number(r), "average_best_overlap": json_number(abo)} for name, r, abo in rows
        },
    }
