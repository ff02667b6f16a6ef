"""What may be wrong with annotated images: boxes, classes and proposals, as lists for people and programs.

Nothing here looks at pixels; `duplicates` does. Each rule is a function that says what it looks for; its limit is a
constant beside it.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals.recall import MIN_IOU
from tf_fast_rcnn.data.proposals.settings import DEFAULT_MIN_SIZE, shorter_sides

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

# The paper's shorter side of the network's input, in which sizes are told.
NETWORK_SIDE = 600

DUPLICATE_IOU = 0.95
HUGE_AREA = 0.95
EXTREME_ASPECT = 10.0
RARE_OBJECTS = 10

# Names are alike from this ratio of difflib on: one letter of four too many ("cats": 0.857), two of eight exchanged.
_ALIKE = 0.82
# A rare name is taken for a mistyped one only beside a name that is so many times as frequent.
_MORE_FREQUENT = 10


class Kind(NamedTuple):
    """A kind of finding: its title, and what it means for training."""

    title: str
    meaning: str


# In the order of the page: what most likely spoils training first.
KINDS = {
    "unreadable_images": Kind("Unreadable images", "Left out: their files are missing, cut off or no images."),
    "mistyped_classes": Kind(
        "Class names that look mistyped",
        "A detector learns each spelling as a class of its own. Correct the annotations, or rename the class.",
    ),
    "classes_without_objects": Kind(
        "Classes without objects", "The detector gets an output for them that nothing trains."
    ),
    "rare_classes": Kind(
        "Rare classes", f"Fewer than {RARE_OBJECTS} objects: too few to learn, and to measure, how they look."
    ),
    "images_without_labels": Kind(
        "Images without labels", "Right where nothing is to be found; else everything in them is learned as background."
    ),
    "identical_images": Kind(
        "Identical images",
        "Equal pixel by pixel. In training and test data at once they make the test too good.",
    ),
    "similar_images": Kind(
        "Nearly identical images", "Seldom told apart by eye: saved again, resized, or taken one after the other."
    ),
    "duplicate_boxes": Kind(
        "Objects annotated twice",
        f"Boxes of one class with an IoU of at least {DUPLICATE_IOU}. Scored, one of them always counts as missed.",
    ),
    "boxes_of_two_classes": Kind(
        "Objects with two classes",
        f"Boxes of different classes with an IoU of at least {DUPLICATE_IOU}: the losses of the two contradict.",
    ),
    "tiny_boxes": Kind(
        "Tiny boxes",
        f"Shorter side below {DEFAULT_MIN_SIZE * NETWORK_SIDE:.0f} pixels where the image's has {NETWORK_SIDE}, two "
        "cells of the feature map: RoI pooling sees little of them.",
    ),
    "huge_boxes": Kind(
        "Huge boxes", f"More than {HUGE_AREA:.0%} of the image. Often a label for the whole image, not an object."
    ),
    "extreme_aspects": Kind(
        "Very long boxes", f"One side more than {EXTREME_ASPECT:.0f} times the other. Often a slip of the mouse."
    ),
    "missed_objects": Kind(
        "Objects without a good proposal",
        f"No proposal with an IoU of at least {MIN_IOU}: the detector cannot find them, and does not learn from them "
        "but through their own boxes.",
    ),
}


class Finding(NamedTuple):
    """One thing that may be wrong.

    Attributes:
        kind: a key of `KINDS`.
        text: what was found, for people.
        images: indices of the images in the data set; none for classes.
        objects: indices of the objects in the (only) image.
    """

    kind: str
    text: str
    images: tuple[int, ...] = ()
    objects: tuple[int, ...] = ()


class ObjectMeasures(NamedTuple):
    """Numbers of each object of an image, or of all images: arrays `[G]`.

    Attributes:
        class_ids: int32, 1..K.
        sizes: float32, the square root of the share of the image that the box covers, 0 to 1.
        shorter_sides: float32, pixels in a network's input whose shorter side is `NETWORK_SIDE`.
        aspects: float32, width over height in pixels.
        difficult, crowd: bool.
    """

    class_ids: np.ndarray
    sizes: np.ndarray
    shorter_sides: np.ndarray
    aspects: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray


def measure_objects(record: ImageRecord) -> ObjectMeasures:
    """`ObjectMeasures` of an `ImageRecord`."""
    heights, widths = _pixel_sizes(record).T
    return ObjectMeasures(
        class_ids=record.class_ids,
        sizes=np.sqrt(box_algebra.area(record.boxes)),
        shorter_sides=NETWORK_SIDE * shorter_sides(record.boxes, record.height, record.width),
        aspects=(widths / np.maximum(heights, 1e-6)).astype(np.float32),
        difficult=record.difficult,
        crowd=record.crowd,
    )


def box_findings(index: int, record: ImageRecord, class_names: Sequence[str]) -> list[Finding]:
    """What may be wrong with an image's annotations; crowds, which are no single objects, are left out.

    Args:
        index: the image's index in the data set.
        record: its `ImageRecord`.
        class_names: names of the classes 1..K.

    Returns:
        List of `Finding`.
    """
    if not len(record.boxes):
        return [Finding("images_without_labels", "no objects", (index,))]
    measures = measure_objects(record)
    names = [class_names[label - 1] for label in record.class_ids]
    sizes = [f"{width:.0f} x {height:.0f} px" for height, width in _pixel_sizes(record)]

    def of_objects(kind, wrong, tell):
        return [
            Finding(kind, f"{names[each]}, {tell(each)}", (index,), (int(each),))
            for each in np.flatnonzero(wrong & ~record.crowd)
        ]

    sides, aspects = measures.shorter_sides, measures.aspects
    extreme = (aspects > EXTREME_ASPECT) | (aspects < 1 / EXTREME_ASPECT)
    return [
        *_double_boxes(index, record, names),
        *of_objects(
            "tiny_boxes",
            sides < DEFAULT_MIN_SIZE * NETWORK_SIDE,
            lambda each: f"{sizes[each]} ({sides[each]:.0f} px in the network)",
        ),
        *of_objects(
            "huge_boxes",
            measures.sizes**2 > HUGE_AREA,
            lambda each: f"{measures.sizes[each] ** 2:.1%} of the image",
        ),
        *of_objects("extreme_aspects", extreme, lambda each: sizes[each]),
    ]


def _double_boxes(index, record, names):
    """Pairs of boxes that are nearly the same, of one class or of two."""
    overlaps = np.triu(box_algebra.iou(record.boxes, record.boxes), k=1)
    findings = []
    for first, second in np.argwhere(overlaps >= DUPLICATE_IOU).tolist():
        if record.crowd[first] or record.crowd[second]:
            continue
        one_class = record.class_ids[first] == record.class_ids[second]
        text = names[first] if one_class else f"{names[first]} and {names[second]}"
        findings.append(
            Finding(
                "duplicate_boxes" if one_class else "boxes_of_two_classes",
                f"{text}, IoU {overlaps[first, second]:.2f}",
                (index,),
                (first, second),
            )
        )
    return findings


def missed_findings(index: int, record: ImageRecord, class_names: Sequence[str], overlaps: np.ndarray) -> list[Finding]:
    """The objects whose best proposal has an IoU below `MIN_IOU`; crowds are left out.

    Args:
        index, record, class_names: as for `box_findings`.
        overlaps: float `[G]`, the IoU of each object's best proposal.
    """
    return [
        Finding(
            "missed_objects",
            f"{class_names[record.class_ids[each] - 1]}, best IoU {overlaps[each]:.3f}",
            (index,),
            (int(each),),
        )
        for each in np.flatnonzero((overlaps < MIN_IOU) & ~record.crowd)
    ]


def class_findings(counts: Mapping[str, int]) -> list[Finding]:
    """What may be wrong with the classes.

    Args:
        counts: dict, class name to number of objects.

    Returns:
        List of `Finding`.

    Example:
        >>> [finding.text for finding in class_findings({"platelets": 361, "Platelets ": 12})]
        ["'Platelets ' (12 objects) for 'platelets' (361)?"]
    """
    mistyped = [
        Finding("mistyped_classes", f"{name!r} ({counts[name]} objects) for {meant!r} ({counts[meant]})?")
        for name, meant in mistyped_names(counts)
    ]
    empty = [Finding("classes_without_objects", name) for name, count in counts.items() if count == 0]
    rare = [
        Finding("rare_classes", f"{name}: {count} {'object' if count == 1 else 'objects'}")
        for name, count in sorted(counts.items(), key=lambda item: item[1])
        if 0 < count < RARE_OBJECTS
    ]
    return [*mistyped, *empty, *rare]


def mistyped_names(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs `(name, the more frequent name that may be meant)`.

    Names that differ only by case, spaces, punctuation or Unicode form are pairs whatever their counts; names that are
    spelled alike where one is ten times as frequent. Names that differ by their numbers are not ("class1", "class2").

    Args:
        counts: dict, class name to number of objects.
    """
    by_count = sorted(counts, key=lambda name: (-counts[name], name))
    pairs = []
    for position, name in enumerate(by_count):
        meant = next((other for other in by_count[:position] if _may_mean(name, other, counts)), None)
        if meant is not None:
            pairs.append((name, meant))
    return pairs


def _may_mean(name, other, counts):
    plain, other_plain = _plain(name), _plain(other)
    if plain == other_plain:
        return plain != ""
    if counts[other] < _MORE_FREQUENT * max(1, counts[name]):
        return False
    if re.sub(r"\d+", "", plain) == re.sub(r"\d+", "", other_plain):
        return False
    return bool(difflib.get_close_matches(plain, [other_plain], cutoff=_ALIKE))


def _plain(name):
    return "".join(letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isalnum())


def _pixel_sizes(record):
    """Height and width in pixels of each object: float32 `[G, 2]`."""
    corners = box_algebra.scale(record.boxes, record.height, record.width)
    return corners[:, 2:] - corners[:, :2]
