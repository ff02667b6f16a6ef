"""Average precision of a precision-recall curve under each protocol.

Curves are arrays `[..., D]`, so the curves of many resamples of a dataset are evaluated at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.evaluation.matching import class_matches, precision_recall

if TYPE_CHECKING:
    from tf_fast_rcnn.evaluation.matching import ClassMatches, Matching


# What MATLAB's 0:0.1:1 makes of the recalls 0, 0.1, ... 1 in VOCevaldet.m. It counts in steps of 0.1 from both ends to
# the middle, so that all but one are the numbers nearest to the decimals: 3 * 0.1 is greater than 0.3, and a recall of
# exactly 3 / 10 does not reach it.
ELEVEN_RECALLS = (0.0, 0.1, 0.2, 3 * 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def eleven_point_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """AP of VOC 2007: the mean over the recalls 0, 0.1, ... 1 of the highest precision at that recall or above.

    The recalls are `ELEVEN_RECALLS`, the binary fractions of the development kit.

    Args:
        recall, precision: float64 `[..., D]`, with non-decreasing recall.

    Example:
        >>> float(eleven_point_ap(np.array([0.5, 1.0]), np.array([1.0, 1.0])))
        1.0
    """
    return _ap_at(np.array(ELEVEN_RECALLS), recall, precision)


def area_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """AP of VOC 2010: the area under the curve of the highest precision at each recall or above.

    Args:
        recall, precision: float64 `[..., D]`, with non-decreasing recall.

    Example:
        >>> round(float(area_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))), 4)
        0.8333
    """
    return (np.diff(recall, prepend=0.0) * _best_from(precision)).sum(axis=-1)


def hundred_and_one_point_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """AP of COCO at one IoU threshold: like `eleven_point_ap`, at the recalls 0, 0.01, ... 1."""
    return _ap_at(np.linspace(0, 1, 101), recall, precision)


_RULES = {"voc07": eleven_point_ap, "voc10": area_ap, "coco": hundred_and_one_point_ap}


def class_ap(protocol: str, matches: Sequence[ClassMatches], image_weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision of one class, averaged over the IoU thresholds (COCO has ten).

    Args:
        protocol: "voc07", "voc10" or "coco".
        matches: the `ClassMatches` of the class at each IoU threshold.
        image_weights: see `precision_recall`.

    Returns:
        float64 `[...]`, 0 to 1; NaN if there are no objects to find.
    """
    curves = [precision_recall(of_overlap, image_weights) for of_overlap in matches]
    aps = np.mean([_RULES[protocol](recall, precision) for precision, recall in curves], axis=0)
    objects = matches[0].object_images
    num_objects = len(objects) if image_weights is None else image_weights[..., objects].sum(axis=-1)
    return np.where(num_objects, aps, np.nan)


def mean_ap(protocol: str, matching: Matching, labels: Iterable[int]) -> float:
    """Mean AP of some classes at the IoU threshold of a `Matching`; a class without objects to find has an AP of 1."""
    aps = [class_ap(protocol, [class_matches(matching, label)]) for label in labels]
    return float(np.mean(np.nan_to_num(aps, nan=1.0))) if aps else float("nan")


def _ap_at(levels, recall, precision):
    """The mean over recall levels of the highest precision at that recall or above, 0 if it is not reached."""
    reached = np.searchsorted(levels, recall, side="right")
    first_reached = np.diff(reached, prepend=0)
    return (first_reached * _best_from(precision)).sum(axis=-1) / len(levels)


def _best_from(precision):
    """The highest precision at or after each point of the curve."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
