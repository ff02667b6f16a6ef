"""Which types of error cost average precision. Every false positive and every undetected object has one type.

The types, their order of precedence and the meaning of fixing an error are those of TIDE (D. Bolya, S. Foley,
J. Hays and J. Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2), which
builds on D. Hoiem, Y. Chodpathumwan and Q. Dai, "Diagnosing Error in Object Detectors", ECCV 2012. With t_f the
IoU threshold of a match and t_b = 0.1, the type of a false positive is the first that applies:

- localisation: its best IoU with an object of its class is at least t_b and below t_f;
- classification: its IoU with an object of another class is at least t_f;
- duplicate: its IoU with an object of its class is at least t_f, but the object is matched by another detection;
- background: its IoU with every object is below t_b;
- both: the remaining false positives, with an IoU of at least t_b and below t_f only with an object of another class.

An undetected object without a classification or localisation error is missed, unless a detection beyond the number that
COCO scores matches it.

Fixing the classification or localisation errors turns the highest-scoring error of each undetected object into a true
positive of the object's class and removes the other errors of that type. (TIDE takes the highest-scoring error of both
types together.) Fixing both, duplicate or background removes the detection. Fixing missed removes the object from the
ground truth; a class without remaining objects has an AP of 1. Each type is fixed on its own, so the gains do not add
up.

Difficult objects and crowds are ignored. Under the COCO protocol the IoU threshold is 0.5 and AP is AP50.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.evaluation.average_precision import mean_ap
from tf_fast_rcnn.evaluation.matching import concatenated, first_matches
from tf_fast_rcnn.evaluation.results import json_number
from tf_fast_rcnn.evaluation.voc import pixel_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.evaluation.results import EvaluationResult

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
BACKGROUND_IOU = 0.1
# Detections with a lower score are rarely shown to a user; they are most of the errors but cost little AP.
CONFIDENT = 0.5


class Breakdown(NamedTuple):
    """The errors of one evaluation.

    Attributes:
        mean_ap: mean AP under the protocol, at one IoU threshold.
        counts: int64 `[6, K]`, number of errors by type (as in `KINDS`) and class of the detection or missed object.
        confident_counts: int64 `[6, K]`, the same for detections with a score of at least 0.5, and missed objects.
        gains: gain in mean AP from fixing all errors of a type, by type; also for "false positives" (all of them
            removed) and "false negatives" (all undetected objects removed).
        kinds: int64 `[N]`, index in `KINDS` for each detection of the result's first `Matching`, -1 for no error.
        missed: bool `[M]`, which objects are missed.
    """

    mean_ap: float
    counts: np.ndarray
    confident_counts: np.ndarray
    gains: dict
    kinds: np.ndarray
    missed: np.ndarray

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """A dict for `json.dump`."""

        def by_kind(counts):
            return {
                kind: dict(zip(class_names, map(int, row), strict=True))
                for kind, row in zip(KINDS, counts, strict=True)
            }

        return {
            "mean_ap": json_number(self.mean_ap),
            "gains": {name: json_number(gain) for name, gain in self.gains.items()},
            "counts": by_kind(self.counts),
            "confident_counts": by_kind(self.confident_counts),
        }


def break_down(dataset: DetectionDataset, detections: Sequence[Detections], result: EvaluationResult) -> Breakdown:
    """Assigns a type to each error of an evaluation and computes the gain in mean AP from fixing each type.

    Args:
        dataset: the `DetectionDataset` that was evaluated.
        detections: its `Detections`, in order.
        result: the `EvaluationResult` that `score_detections` returned for them.

    Returns:
        `Breakdown`.

    Example:
        >>> result = score_detections(test, detections)                         # doctest: +SKIP
        >>> break_down(test, detections, result).gains["localisation"]          # doctest: +SKIP
        0.031
    """
    matching, threshold = result.matchings[0], result.iou_threshold or 0.5
    overlaps = _best_overlaps(dataset, detections)
    kinds = _kinds(overlaps, ~matching.true & matching.counts, threshold)
    targets = np.full(len(kinds), -1)
    for kind, objects in (("localisation", overlaps.same_object), ("classification", overlaps.other_object)):
        targets = np.where(kinds == KINDS.index(kind), objects, targets)
    # Those that only detections beyond the protocol's number match are detected, although not scored.
    missed = matching.object_counts & ~matching.detected()
    missed[targets[targets >= 0]] = False
    labels = np.concatenate([matching.class_ids, matching.object_class_ids[missed]])
    all_kinds = np.concatenate([kinds, np.full(np.count_nonzero(missed), KINDS.index("missed"))])
    confident = np.concatenate([matching.scores >= CONFIDENT, np.ones(np.count_nonzero(missed), bool)])
    before, gains = _gains(result, matching, kinds, targets, missed)
    return Breakdown(
        mean_ap=before,
        counts=_counts(all_kinds, labels, len(result.classes)),
        confident_counts=_counts(all_kinds[confident], labels[confident], len(result.classes)),
        gains=gains,
        kinds=kinds,
        missed=missed,
    )


class _Overlaps(NamedTuple):
    """For each detection, the best IoU with an object of its class and of another class, and the objects' indices;
    arrays `[N]`."""

    same: np.ndarray
    same_object: np.ndarray
    other: np.ndarray
    other_object: np.ndarray


def _best_overlaps(dataset, detections):
    columns, first = [], 0
    for record, found in zip(dataset, detections, strict=True):
        to_find = ~(record.difficult | record.crowd)
        overlaps = boxes.iou(pixel_boxes(found.boxes, record), pixel_boxes(record.boxes, record)) * to_find
        same_class = found.class_ids[:, None] == record.class_ids
        columns.append([*_best(overlaps * same_class, first), *_best(overlaps * ~same_class, first)])
        first += len(record.class_ids)
    types = (np.float64, np.int64, np.float64, np.int64)
    return _Overlaps(*[concatenated([column[n] for column in columns], types[n]) for n in range(4)])


def _best(overlaps, first):
    """The largest IoU of each row (0 without objects) and the index of its object."""
    if not overlaps.shape[1]:
        return np.zeros(len(overlaps)), np.full(len(overlaps), -1)
    return overlaps.max(axis=1), overlaps.argmax(axis=1) + first


def _kinds(overlaps, false_positives, threshold):
    same, other = overlaps.same, overlaps.other
    conditions = {
        "localisation": (same >= BACKGROUND_IOU) & (same < threshold),
        "classification": other >= threshold,
        "duplicate": same >= threshold,
        "background": np.maximum(same, other) < BACKGROUND_IOU,
    }
    numbers = [KINDS.index(kind) for kind in conditions]
    kinds = np.select(list(conditions.values()), numbers, default=KINDS.index("both"))
    return np.where(false_positives, kinds, -1)


def _counts(kinds, labels, num_classes):
    counts = np.zeros((len(KINDS), num_classes), np.int64)
    np.add.at(counts, (kinds[kinds >= 0], labels[kinds >= 0] - 1), 1)
    return counts


def _gains(result, matching, kinds, targets, missed):
    """The mean AP, and the gain from fixing each type of error."""
    unfound = matching.object_counts & ~matching.found()

    def of_kind(name):
        return kinds == KINDS.index(name)

    fixed = {
        **{kind: _corrected(matching, of_kind(kind), targets) for kind in ("classification", "localisation")},
        **{kind: _removed(matching, of_kind(kind)) for kind in ("both", "duplicate", "background")},
        "missed": matching._replace(object_counts=matching.object_counts & ~missed),
        "false positives": _removed(matching, kinds >= 0),
        "false negatives": matching._replace(object_counts=matching.object_counts & ~unfound),
    }
    labels = np.unique(matching.object_class_ids[matching.object_counts])
    before = mean_ap(result.protocol, matching, labels)
    return before, {name: mean_ap(result.protocol, each, labels) - before for name, each in fixed.items()}


def _removed(matching, chosen):
    return matching._replace(counts=matching.counts & ~chosen)


def _corrected(matching, chosen, targets):
    """Makes the best chosen detection of each undetected object a true positive and drops the other chosen ones."""
    chosen_targets, free = targets[chosen], np.full(len(targets), -1)
    free[chosen] = np.where(matching.found()[chosen_targets], -1, chosen_targets)
    best = first_matches(free, matching.scores)
    labels, objects = matching.class_ids.copy(), matching.objects.copy()
    labels[best], objects[best] = matching.object_class_ids[targets[best]], targets[best]
    return matching._replace(
        class_ids=labels, objects=objects, true=matching.true | best, counts=matching.counts & (~chosen | best)
    )
