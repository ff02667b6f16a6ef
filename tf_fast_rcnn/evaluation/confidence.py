"""Confidence intervals of average precision: how much AP would vary with a different sample of test images.

The percentile bootstrap (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13) resamples
the images of the dataset with replacement and recomputes AP many times; the interval is given by quantiles of these
values. Images are resampled, not objects, because the objects of one image are not independent. The interval covers
only the choice of test images, not the variation between training runs.
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
    """Adds a confidence interval for the mean AP and for the AP of each class.

    The matches in one image do not depend on other images. They are taken from `result`, so each resample costs only
    one pass over the detections.

    Args:
        result: `EvaluationResult`.
        level: fraction of the resampled values inside the interval, between 0 and 1.
        samples: number of resamples.
        seed: seed of the resampling.
        progress: whether to show a progress bar on standard error.

    Returns:
        A copy of `result` with `confidence`, and `interval` in each of its classes. A resample without objects of a
        class does not count for the interval of that class, and the class does not count in its mean AP.

    Raises:
        InputError: if the level is not between 0 and 1, or there are fewer than 2 resamples.

    Example:
        >>> result = with_confidence(score_detections(test, detections))        # doctest: +SKIP
        >>> result.confidence.mean_ap                                           # doctest: +SKIP
        (0.79, 0.86)
    """
    if not 0 < level < 1:
        raise InputError(f"confidence: found {level}; expected a number between 0 and 1; 0.95 is usual")
    if samples < 2:
        raise InputError(f"confidence: found {samples} resamples; expected at least 2; 1000 is usual")
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
    """The AP of each class in each resample: float64 `[S, K]`, NaN if the resample has no objects of the class."""
    drawn = rng.integers(result.num_images, size=(samples, result.num_images))
    aps = np.empty((samples, len(result.classes)))
    for label in tqdm(range(1, aps.shape[1] + 1), desc="resample", unit="class", delay=2, disable=not progress):
        matches = [class_matches(matching, label) for matching in result.matchings]
        # In chunks of resamples, to limit memory to some tens of megabytes.
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
