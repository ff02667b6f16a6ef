"""Calibration of the scores: 80 % of the detections with a score of 0.8 should be correct.

Reliability curves and the expected calibration error (M. P. Naeini, G. F. Cooper and M. Hauskrecht, AAAI 2015; C. Guo
and others, "On Calibration of Modern Neural Networks", ICML 2017, section 2). As in F. Küppers and others (CVPR
workshops 2020), precision replaces accuracy for detectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn.evaluation.results import json_number

if TYPE_CHECKING:
    from tf_fast_rcnn.evaluation.matching import Matching

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
