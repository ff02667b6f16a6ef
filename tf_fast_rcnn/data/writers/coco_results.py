"""Writes the detections of a data set in COCO's results format; see `data.coco_results`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.data.coco_results import result_rows
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import ImageRecord


def coco_results(
    dataset: DetectionDataset, detections: Sequence[Detections], category_ids: Mapping[str, int] | int | None = None
) -> list[dict[str, Any]]:
    """Converts detections to COCO's results format, for its evaluation server and other tools.

    Args:
        dataset: `DetectionDataset`; see `result_image_ids` for the image ids.
        detections: `Detections` of each of its images, in order.
        category_ids: dict from class name to category id, as returned by `coco_category_ids`; a number for the first
            class, from which the others are counted; None for 1..K.

    Returns:
        A list of dicts with image_id, category_id, bbox (x, y, width and height in pixels) and score, for `json.dump`.

    Raises:
        InputError: for a class without a category id.

    Example:
        >>> ids = coco_category_ids("annotations/instances_val2017.json")                   # doctest: +SKIP
        >>> json.dump(coco_results(val, detections, ids), open("results.json", "w"))        # doctest: +SKIP
    """
    category_ids = check_category_ids(dataset, category_ids)
    by_label = {label: category_ids[name] for label, name in enumerate(dataset.class_names, start=1)}
    names, parts = [], []
    for record, found in zip(dataset, detections, strict=True):
        names.append((record.image_id, record.source_id))
        size = (record.height, record.width)
        parts.append(result_rows(found.boxes, found.class_ids, found.scores, record.image_id, size, by_label))
    return [
        entry | {"image_id": image_id}
        for image_id, part in zip(_result_ids(names), parts, strict=True)
        for entry in part
    ]


def result_image_ids(records: Iterable[ImageRecord]) -> list[int | str]:
    """The image ids in COCO's results.

    Ids of COCO files are written as they are there, with their type. Other ids that consist of digits are written as
    numbers, "000042" as 42, unless two ids of the data set would then be the same; all others as text.

    Example:
        >>> result_image_ids(test)                                                          # doctest: +SKIP
        [139, 285, 632]
    """
    return _result_ids([(record.image_id, record.source_id) for record in records])


def _result_ids(names):
    """`result_image_ids` of pairs of `image_id` and `source_id`."""
    numbered = [_as_number(image_id) if source_id is None else source_id for image_id, source_id in names]
    if len(set(numbered)) == len(set(names)):
        return numbered
    return [image_id if source_id is None else source_id for image_id, source_id in names]


def _as_number(text):
    return int(text) if text.isascii() and text.isdecimal() else text


def check_category_ids(dataset: DetectionDataset, category_ids: Mapping[str, int] | int | None) -> Mapping[str, int]:
    """The category id of each class name; 1..K if `category_ids` is None, or K numbers from `category_ids` on.

    Raises:
        InputError: if one is missing.
    """
    if category_ids is None or isinstance(category_ids, int):
        first = 1 if category_ids is None else category_ids
        return {name: number for number, name in enumerate(dataset.class_names, start=first)}
    missing = [name for name in dataset.class_names if name not in category_ids]
    if missing:
        raise InputError(
            f"category ids: found none for class {missing[0]!r}; expected one for each class of {dataset.name}; pass "
            "the COCO file that the classes come from"
        )
    return category_ids
