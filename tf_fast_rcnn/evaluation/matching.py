"""Matches between detections and ground truth at one IoU threshold, from which curves, intervals and errors follow.

The protocol defines the matching rules: `voc.match_voc` and `coco` create these tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections


class Matching(NamedTuple):
    """The N detections and M objects of a dataset, image by image, and their matches at one IoU threshold.

    Attributes:
        images: int64 `[N]`, index of each detection's image in the dataset.
        class_ids: int32 `[N]`, its class, 1..K.
        scores: float32 `[N]`, its score; float64 if it was read from a file.
        objects: int64 `[N]`, dataset-wide index of the object that it matches; -1 for none.
        true: bool `[N]`, whether it is a true positive.
        counts: bool `[N]`, False for detections that are ignored: those that match difficult objects or crowds, and
            those beyond the number that the protocol scores.
        object_images: int64 `[M]`, index of each object's image.
        object_class_ids: int32 `[M]`, its class, 1..K.
        object_counts: bool `[M]`, whether it has to be detected; False for difficult objects and crowds.
        ranks: int64 `[N]`, by which detections of equal scores are ordered; None for the order given here.
    """

    images: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    objects: np.ndarray
    true: np.ndarray
    counts: np.ndarray
    object_images: np.ndarray
    object_class_ids: np.ndarray
    object_counts: np.ndarray
    ranks: np.ndarray | None = None

    def found(self) -> np.ndarray:
        """Which objects are matched by a true positive: bool `[M]`."""
        found = np.zeros(len(self.object_class_ids), bool)
        found[self.objects[self.true]] = True
        return found

    def detected(self) -> np.ndarray:
        """Which objects are matched by any detection, even by one that does not count: bool `[M]`."""
        detected = np.zeros(len(self.object_class_ids), bool)
        detected[self.objects[self.objects >= 0]] = True
        return detected


class ClassMatches(NamedTuple):
    """The detections of one class that count, by decreasing score; ties are in the order of the protocol.

    Attributes:
        images: int64 `[D]`, index of each detection's image in the dataset.
        scores: float `[D]`, its score.
        true: bool `[D]`, whether it is a true positive.
        object_images: int64 `[G]`, the image of each object that has to be detected.
    """

    images: np.ndarray
    scores: np.ndarray
    true: np.ndarray
    object_images: np.ndarray


def matching_of(
    dataset: DetectionDataset,
    detections: Sequence[Detections],
    objects: np.ndarray,
    true: np.ndarray,
    counts: np.ndarray,
    ranks: np.ndarray | None = None,
) -> Matching:
    """The `Matching` of a dataset from its last columns, which are in the order of images; see there."""
    return Matching(
        images=np.repeat(np.arange(len(detections)), [len(found.scores) for found in detections]),
        class_ids=concatenated([found.class_ids for found in detections], np.int32),
        scores=scores_of(detections),
        objects=objects,
        true=true,
        counts=counts,
        object_images=np.repeat(np.arange(len(dataset)), [len(record.class_ids) for record in dataset]),
        object_class_ids=concatenated([record.class_ids for record in dataset], np.int32),
        object_counts=~concatenated([record.difficult | record.crowd for record in dataset], bool),
        ranks=ranks,
    )


def scores_of(detections: Sequence[Detections]) -> np.ndarray:
    """The scores of all detections, image by image: float64 `[N]` if any image's are, otherwise float32."""
    scores = [found.scores for found in detections]
    return concatenated(scores, np.result_type(np.float32, *scores))


def concatenated(arrays: Iterable[np.ndarray], dtype: npt.DTypeLike) -> np.ndarray:
    """Concatenates arrays `[N]`; the result has the given dtype even if there are no arrays."""
    return np.concatenate([np.zeros(0, dtype), *arrays])


def first_matches(objects: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which detections have the highest score among those of the same object: bool `[N]`; the first of ties.

    Args:
        objects: int64 `[N]`, index of the object of each detection, -1 for none.
        scores: float32 `[N]`, scores of the detections.
    """
    matched = np.argsort(-scores, kind="stable")
    matched = matched[objects[matched] >= 0]
    _, first = np.unique(objects[matched], return_index=True)
    is_first = np.zeros(len(objects), bool)
    is_first[matched[first]] = True
    return is_first


def class_matches(matching: Matching, label: int) -> ClassMatches:
    """`ClassMatches` of one class."""
    chosen = np.flatnonzero((matching.class_ids == label) & matching.counts)
    ranks = chosen if matching.ranks is None else matching.ranks[chosen]
    chosen = chosen[np.lexsort((ranks, -matching.scores[chosen]))]
    to_find = (matching.object_class_ids == label) & matching.object_counts
    return ClassMatches(
        matching.images[chosen], matching.scores[chosen], matching.true[chosen], matching.object_images[to_find]
    )


def precision_recall(matches: ClassMatches, image_weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection of `ClassMatches`: float64 `[..., D]` each.

    Args:
        matches: `ClassMatches`.
        image_weights: integers `[..., I]`, how many times each image occurs in the (resampled) dataset; None: once.
    """
    weights, num_objects = np.ones(len(matches.true), int), len(matches.object_images)
    if image_weights is not None:
        weights = image_weights[..., matches.images]
        num_objects = image_weights[..., matches.object_images].sum(axis=-1, keepdims=True)
    hits = np.cumsum(matches.true * weights, axis=-1)
    detections = np.cumsum(weights, axis=-1)
    return hits / np.maximum(detections, 1), hits / np.maximum(num_objects, 1)
