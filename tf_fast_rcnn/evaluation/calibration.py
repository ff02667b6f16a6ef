"""Whether scores are probabilities: of the detections with a score of 0.8, 80 % should be right.

Reliability curves and the expected calibration error (M. P. Naeini, G. F. Cooper and M. Hauskrecht, AAAI 2015; C. Guo
and others, "On Calibration of Modern Neural Networks", ICML 2017, section 2), with precision in place of accuracy, as
F. Küppers and others have it for detectors (CVPR workshops 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn.evaluation.results import json_number

if TYPE_CHECKING:
    from tf_fast_rcnn.evaluation.matching import Matching

BINS = 10


class Reliability(NamedTuple):
    """How often detections are right, by their score.

    Attributes:
        counts: int64 `[10]`, detections in each tenth of the scores: above its lower edge, up to its upper one.
        scores: float64 `[10]`, their mean score; NaN without any.
        precisions: float64 `[10]`, the share of true positives; NaN without any.
        error: the expected calibration error, the mean of |precision - score| of the bins, weighted by their
            detections; NaN without detections.
    """

    counts: np.ndarray
    scores: np.ndarray
    precisions: np.ndarray
    error: float

    def to_json(self) -> dict[str, Any]:
        """A dict that `json.dump` takes."""
        return {
            "error": json_number(self.error),
            "counts": self.counts.tolist(),
            "scores": list(map(json_number, self.scores)),
            "precisions": list(map(json_number, self.precisions)),
        }


def reliability(matching: Matching, label: int | None = None) -> Reliability | None:
    """The `Reliability` of the scores of a `Matching`.

    Args:
        matching: what each detection found at one overlap; those on difficult objects and crowds do not count.
        label: a class, 1..K; None for all of them together.

    Returns:
        `Reliability`; None where scores lie outside 0 to 1 and are no probabilities.

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
