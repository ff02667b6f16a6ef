"""Which detections find which objects of a data set, at one overlap: what curves, intervals and errors come from.

The rules by which a detection finds an object are the protocol's: `voc.match_voc` and `coco` make these tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import DetectionDataset


class Matching(NamedTuple):
    """The detections of a data set, image by image, and what became of each at one overlap.

    Attributes:
        images: int64 `[N]`, position of each detection's image in the data set.
        class_ids: int32 `[N]`, its class, 1..K.
        scores: float32 `[N]`.
        objects: int64 `[N]`, number of the object that it overlaps enough, counted through the data set; -1 for none.
        true: bool `[N]`, whether it is a true positive: the one that finds its object.
        counts: bool `[N]`; false on difficult objects and crowds, where a detection is neither right nor wrong.
        object_images: int64 `[M]`, position of each object's image.
        object_class_ids: int32 `[M]`.
        object_counts: bool `[M]`, whether it is to be found: false for difficult objects and crowds.
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

    def found(self) -> np.ndarray:
        """Which objects a true positive has: bool `[M]`."""
        found = np.zeros(len(self.object_class_ids), bool)
        found[self.objects[self.true]] = True
        return found


class ClassMatches(NamedTuple):
    """The detections of one class that count, by falling score; equal ones in the order of the images.

    Attributes:
        images: int64 `[D]`; scores: float32 `[D]`; true: bool `[D]`.
        object_images: int64 `[G]`, the image of each object that is to be found.
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
) -> Matching:
    """A `Matching` of a data set, with what became of each detection, image by image."""
    return Matching(
        images=np.repeat(np.arange(len(detections)), [len(found.scores) for found in detections]),
        class_ids=concatenated([found.class_ids for found in detections], np.int32),
        scores=concatenated([found.scores for found in detections], np.float32),
        objects=objects,
        true=true,
        counts=counts,
        object_images=np.repeat(np.arange(len(dataset)), [len(record.class_ids) for record in dataset]),
        object_class_ids=concatenated([record.class_ids for record in dataset], np.int32),
        object_counts=~concatenated([record.difficult | record.crowd for record in dataset], bool),
    )


def concatenated(arrays: Iterable[np.ndarray], dtype: npt.DTypeLike) -> np.ndarray:
    """Arrays `[N]` in one, of a type also where there are none."""
    return np.concatenate([np.zeros(0, dtype), *arrays])


def first_matches(objects: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which detections have the highest score of those with their object: bool `[N]`; the first of equal ones.

    Args:
        objects: int64 `[N]`, numbers of objects, -1 for none.
        scores: float32 `[N]`.
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
    chosen = chosen[np.argsort(-matching.scores[chosen], kind="stable")]
    to_find = (matching.object_class_ids == label) & matching.object_counts
    return ClassMatches(
        matching.images[chosen], matching.scores[chosen], matching.true[chosen], matching.object_images[to_find]
    )


def precision_recall(matches: ClassMatches, image_weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection of `ClassMatches`: float64 `[..., D]` each.

    Args:
        matches: `ClassMatches`.
        image_weights: whole numbers `[..., I]`, how many times each image is in the data set; None for once.
    """
    weights, num_objects = np.ones(len(matches.true), int), len(matches.object_images)
    if image_weights is not None:
        weights = image_weights[..., matches.images]
        num_objects = image_weights[..., matches.object_images].sum(axis=-1, keepdims=True)
    hits = np.cumsum(matches.true * weights, axis=-1)
    detections = np.cumsum(weights, axis=-1)
    return hits / np.maximum(detections, 1), hits / np.maximum(num_objects, 1)
