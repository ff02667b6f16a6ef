"""Average precision of a curve, by each protocol's rule."""

import math

import numpy as np

from tf_fast_rcnn.evaluation.matching import class_matches, precision_recall


def eleven_point_ap(recall, precision):
    """VOC 2007's AP: the mean over the recalls 0, 0.1, ... 1 of the best precision at that recall or a higher one.

    Args:
        recall, precision: float64 `[N]`, recall not falling.

    Example:
        >>> float(eleven_point_ap(np.array([0.5, 1.0]), np.array([1.0, 1.0])))
        1.0
    """
    # k / 10 and not 0.1 * k: a recall of 3 objects in 10 is then exactly the fourth threshold.
    return best_precisions(recall, precision, np.arange(11) / 10).mean()


def best_precisions(recall, precision, levels):
    """The best precision at each of some recalls or a higher one, 0 where it is not reached: float64 `[L]`."""
    best = np.append(_best_from(precision), 0.0)
    return best[np.searchsorted(recall, levels, side="left")]


def area_ap(recall, precision):
    """VOC 2010's AP: the area under the curve of the best precision at each recall or a higher one.

    Args:
        recall, precision: float64 `[N]`, recall not falling.

    Example:
        >>> round(float(area_ap(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))), 4)
        0.8333
    """
    return (np.diff(recall, prepend=0.0) * _best_from(precision)).sum()


def hundred_and_one_point_ap(recall, precision):
    """COCO's AP at one overlap: as `eleven_point_ap`, at the recalls 0, 0.01, ... 1."""
    return best_precisions(recall, precision, np.linspace(0, 1, 101)).mean()


_RULES = {"voc07": eleven_point_ap, "voc10": area_ap, "coco": hundred_and_one_point_ap}


def class_ap(protocol, matches, image_weights=None):
    """Average precision of one class; the mean over several overlaps, as COCO takes it.

    Args:
        protocol: "voc07", "voc10" or "coco".
        matches: the class's `ClassMatches` at each overlap.
        image_weights: see `precision_recall`.

    Returns:
        0 to 1, or NaN where there is no object to find.
    """
    objects = matches[0].object_images
    if not (len(objects) if image_weights is None else image_weights[objects].sum()):
        return math.nan
    curves = [precision_recall(of_overlap, image_weights) for of_overlap in matches]
    return float(np.mean([_RULES[protocol](recall, precision) for precision, recall in curves]))


def mean_ap(protocol, matching, num_classes):
    """Mean over the classes with objects of their AP at the overlap of one `Matching`; NaN without any."""
    aps = [class_ap(protocol, [class_matches(matching, label)]) for label in range(1, num_classes + 1)]
    aps = [ap for ap in aps if not math.isnan(ap)]
    return sum(aps) / len(aps) if aps else math.nan


def _best_from(precision):
    """The best precision at each point of the curve or after it."""
    return np.maximum.accumulate(precision[::-1])[::-1]
