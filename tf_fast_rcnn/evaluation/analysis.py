"""Everything that an evaluation tells beside average precision: errors, calibration, confusion, proposals."""

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
    """How well the proposals cover the objects, crowds left out: the detector cannot find what they miss.

    Attributes:
        recalls: share of each class's objects with a proposal of an IoU of at least 0.5; NaN without objects.
        average_best_overlaps: mean over each class's objects of the best IoU of a proposal (ABO); NaN without objects.
        recall: of all objects together.
        mean_average_best_overlap: mean of the classes' ABO (MABO).
    """

    recalls: list
    average_best_overlaps: list
    recall: float
    mean_average_best_overlap: float


class Analysis(NamedTuple):
    """What `analyse` finds.

    Attributes:
        class_names: of the labels 1..K.
        breakdown: `Breakdown` of the errors.
        calibration: `Reliability` of all scores; None where they are no probabilities.
        class_calibration: the same of each class.
        confusion: int64 `[K + 1, K + 1]`, see `confusion_matrix`.
        proposals: `ProposalQuality`; None for a data set without proposals.
    """

    class_names: tuple
    breakdown: Breakdown
    calibration: Reliability | None
    class_calibration: list
    confusion: np.ndarray
    proposals: ProposalQuality | None

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dump` takes; docs/evaluation.md describes it."""
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
        """Three lines at most for people."""
        gains = sorted(KINDS, key=lambda kind: -self.breakdown.gains[kind])
        lines = []
        if not np.isnan(self.breakdown.mean_ap):
            gained = ", ".join(f"{kind} +{self.breakdown.gains[kind]:.3f}" for kind in gains)
            lines.append(f"mean AP to gain by mending errors: {gained}")
        if self.calibration is not None and not np.isnan(self.calibration.error):
            lines.append(f"calibration error of the scores: {self.calibration.error:.3f}")
        if self.proposals is not None and not np.isnan(self.proposals.recall):
            lines.append(
                f"proposals: recall {self.proposals.recall:.3f} at IoU 0.5, mean average best overlap "
                f"{self.proposals.mean_average_best_overlap:.3f}"
            )
        return "\n".join(lines)


def analyse(dataset: DetectionDataset, detections: Sequence[Detections], result: EvaluationResult) -> Analysis:
    """Looks at what an evaluation's figures come from.

    Args:
        dataset: `DetectionDataset` that was evaluated; its proposals are looked at where it has any.
        detections: its `Detections`, in order.
        result: `EvaluationResult` of `score_detections` for these.

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
    """`ProposalQuality` of a data set with proposals."""
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
