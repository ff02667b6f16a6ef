"""Confidence intervals of average precision: how far another test set of the same kind might have led.

The percentile bootstrap (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): as many
images as the data set has are drawn from it with replacement, the figure is computed again, and the interval lies
between the quantiles of many such figures. Images are drawn, not objects: those of one image are not independent.
It tells of the choice of the test images alone, not of the training run's.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.average_precision import class_ap
from tf_fast_rcnn.evaluation.matching import class_matches
from tf_fast_rcnn.evaluation.results import Confidence

if TYPE_CHECKING:
    from tf_fast_rcnn.evaluation.results import EvaluationResult

_NUMBERS_AT_ONCE = 1 << 20


def with_confidence(
    result: EvaluationResult, level: float = 0.95, samples: int = 1000, seed: int = 0, progress: bool = True
) -> EvaluationResult:
    """The same result with a confidence interval for the mean AP and for each class.

    What the detections of an image find does not depend on the other images: it is taken from the result, so that a
    resample costs one pass over the detections.

    Args:
        result: `EvaluationResult`.
        level: share of the resamples that an interval holds, between 0 and 1.
        samples: number of resamples.
        seed: of the drawing.
        progress: show a progress bar on stderr.

    Returns:
        `EvaluationResult` with `confidence`, and an `interval` in each of its classes. Resamples without objects of a
        class are left out of its interval, and the class out of their mean.

    Raises:
        InputError: for another level, or fewer than 2 resamples.

    Example:
        >>> result = with_confidence(score_detections(test, detections))        # doctest: +SKIP
        >>> result.confidence.mean_ap                                           # doctest: +SKIP
        (0.79, 0.86)
    """
    if not 0 < level < 1:
        raise InputError(f"confidence: found {level}; expected a number between 0 and 1; 0.95 is usual")
    if samples < 2:
        raise InputError(f"confidence: found {samples} resamples; expected 2 or more; 1000 are usual")
    aps = _resampled_aps(result, samples, np.random.default_rng(seed), progress)
    classes = [
        dataclasses.replace(of_class, interval=_interval(of_samples, level))
        for of_class, of_samples in zip(result.classes, aps.T, strict=True)
    ]
    exists = ~np.isnan(aps)
    means = np.where(exists, aps, 0).sum(axis=1)[exists.any(axis=1)] / exists.sum(axis=1)[exists.any(axis=1)]
    confidence = Confidence(level, samples, seed, _interval(means, level))
    return dataclasses.replace(result, classes=tuple(classes), confidence=confidence)


def _resampled_aps(result, samples, rng, progress):
    """Each class's AP in each resample: float64 `[S, K]`, NaN where it has no objects."""
    drawn = rng.integers(result.num_images, size=(samples, result.num_images))
    aps = np.empty((samples, len(result.classes)))
    for label in tqdm(range(1, aps.shape[1] + 1), desc="resample", unit="class", delay=2, disable=not progress):
        matches = [class_matches(matching, label) for matching in result.matchings]
        # A part of the resamples at a time, so that memory stays within some tens of megabytes.
        rows = max(1, _NUMBERS_AT_ONCE // max(result.num_images, *(len(each.scores) for each in matches)))
        for start in range(0, samples, rows):
            weights = np.stack([np.bincount(row, minlength=result.num_images) for row in drawn[start : start + rows]])
            aps[start : start + rows, label - 1] = class_ap(result.protocol, matches, weights)
    return aps


def _interval(values, level):
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
