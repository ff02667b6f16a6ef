"""Confidence intervals of average precision: how far another test set of the same kind might have led.

The percentile bootstrap (B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): as many
images as the data set has are drawn from it with replacement, the figure is computed again, and the interval lies
between the quantiles of many such figures. Images are drawn, not objects: those of one image are not independent.
It tells of the choice of the test images alone, not of the training run's.
"""

import dataclasses
import math

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.average_precision import class_ap
from tf_fast_rcnn.evaluation.matching import class_matches
from tf_fast_rcnn.evaluation.results import Confidence


def with_confidence(result, level=0.95, samples=1000, seed=0, progress=True):
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
    matches = [
        [class_matches(matching, label) for matching in result.matchings] for label in range(1, len(result.classes) + 1)
    ]
    aps = np.empty((samples, len(matches)))
    for sample in tqdm(range(samples), desc="resample", delay=2, disable=not progress):
        drawn = rng.integers(result.num_images, size=result.num_images)
        weights = np.bincount(drawn, minlength=result.num_images)
        aps[sample] = [class_ap(result.protocol, of_class, weights) for of_class in matches]
    return aps


def _interval(values, level):
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
