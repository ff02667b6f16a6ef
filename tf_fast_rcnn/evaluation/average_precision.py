"""Average precision of a curve, by each protocol's rule.

Curves are arrays `[..., D]`: those of many resamples of a data set are taken at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.evaluation.matching import class_matches, precision_recall

if TYPE_CHECKING:
    from tf_fast_rcnn.evaluation.matching import ClassMatches, Matching


def eleven_point_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """VOC 2007's AP: the mean over the recalls 0, 0.1, ... 1 of the best precision at that recall or a higher one.

    Args:
        recall, precision: float64 `[..., D]`, recall not falling.

    Example:
        >>> float(eleven_point_ap(np.array([0.5, 1.0]), np.array([1.0, 1.0])))
        1.0
    """
    # k / 10 and not 0.1 * k: a recall of 3 objects in 10 is then exactly the fourth threshold.
    return _ap_at(np.arange(11) / 10, recall, precision)


def area_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """VOC 2010's AP: the area under the curve of the best precision at each recall or a higher one.

    Args:
        recall, precision: float64 `[..., D]`, recall not falling.

    Example:
        >>> round(float(area_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))), 4)
        0.8333
    """
    return (np.diff(recall, prepend=0.0) * _best_from(precision)).sum(axis=-1)


def hundred_and_one_point_ap(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """COCO's AP at one overlap: as `eleven_point_ap`, at the recalls 0, 0.01, ... 1."""
    return _ap_at(np.linspace(0, 1, 101), recall, precision)


_RULES = {"voc07": eleven_point_ap, "voc10": area_ap, "coco": hundred_and_one_point_ap}


def class_ap(protocol: str, matches: Sequence[ClassMatches], image_weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision of one class; the mean over several overlaps, as COCO takes it.

    Args:
        protocol: "voc07", "voc10" or "coco".
        matches: the class's `ClassMatches` at each overlap.
        image_weights: see `precision_recall`.

    Returns:
        float64 `[...]`, 0 to 1; NaN where there is no object to find.
    """
    curves = [precision_recall(of_overlap, image_weights) for of_overlap in matches]
    aps = np.mean([_RULES[protocol](recall, precision) for precision, recall in curves], axis=0)
    objects = matches[0].object_images
    num_objects = len(objects) if image_weights is None else image_weights[..., objects].sum(axis=-1)
    return np.where(num_objects, aps, np.nan)


def mean_ap(protocol: str, matching: Matching, labels: Iterable[int]) -> float:
    """Mean over some classes of their AP at the overlap of one `Matching`; 1 for one with no object to find."""
    aps = [class_ap(protocol, [class_matches(matching, label)]) for label in labels]
    return float(np.mean(np.nan_to_num(aps, nan=1.0))) if aps else float("nan")


def _ap_at(levels, recall, precision):
    """The mean over recalls of the best precision at each or a higher one, 0 where it is not reached."""
    reached = np.searchsorted(levels, recall, side="right")
    first_reached = np.diff(reached, prepend=0)
    return (first_reached * _best_from(precision)).sum(axis=-1) / len(levels)


def _best_from(precision):
    """The best precision at each point of the curve or after it."""
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
