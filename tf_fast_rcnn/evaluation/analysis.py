"""What an evaluation reports in addition to average precision: error types, calibration, confusion, proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn.data.proposals.recall import class_best_overlaps, recall
from tf_fast_rcnn.evaluation import annotations_of
from tf_fast_rcnn.evaluation.breakdown import KINDS, Breakdown, break_down
from tf_fast_rcnn.evaluation.calibration import Reliability, reliability
from tf_fast_rcnn.evaluation.confusion import confusion_matrix
from tf_fast_rcnn.evaluation.results import json_number

if TYPE_CHECKING:
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.evaluation.results import EvaluationResult


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
