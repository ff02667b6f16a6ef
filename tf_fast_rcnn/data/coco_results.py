"""Reads and writes COCO's results format (https://cocodataset.org/#format-results).

A file is a JSON list of `{"image_id": 42, "category_id": 18, "bbox": [x, y, width, height], "score": 0.9}`, with boxes
in pixels, 0-based and continuous.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.readers.annotations import finite
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
    from tf_fast_rcnn.files import StrPath


class Result(NamedTuple):
    """One entry of a file.

    Attributes:
        where: the file and the number of the entry, for messages.
        image_id: a number or a string.
        category_id: as in the file; None if missing.
        box: x, y, width and height in pixels, four finite numbers.
        score: a finite number; None if missing.
        file_name, category_name: the name of the image file and of the class, which some tools add; None if missing.
    """

    where: str
    image_id: int | float | str
    category_id: object
    box: tuple
    score: float | None
    file_name: str | None = None
    category_name: str | None = None


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
        parts.append(image_results(found, record.image_id, record.height, record.width, by_label))
    return [
        entry | {"image_id": image_id}
        for image_id, part in zip(_result_ids(names), parts, strict=True)
        for entry in part
    ]


def image_results(
    found: Detections, image_id: int | str, height: int, width: int, category_ids: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """The results of one image; `category_ids` by label, None for the labels themselves. See `coco_results`."""
    windows = np.round(boxes.to_coco(np.asarray(found.boxes, np.float64), height, width), 3)
    return [
        {
            "image_id": image_id,
            "category_id": label if category_ids is None else category_ids[label],
            "bbox": window.tolist(),
            "score": float(score),
        }
        for window, label, score in zip(windows, found.class_ids.tolist(), found.scores, strict=True)
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


def read_results(
    path: StrPath, fields: Collection[str] = ("image_id", "category_id", "bbox", "score")
) -> Iterator[Result]:
    """Yields the `Result`s of a file.

    Args:
        path: the file.
        fields: the required keys of each entry, including "image_id" and "bbox".

    Raises:
        InputError: if the file cannot be read or is not a JSON list, or an entry lacks a field or has a wrong type.
    """
    path = Path(path)
    for number, entry in enumerate(_read_list(path)):
        yield _result(f"{path}, entry {number}", entry, fields)


def _read_list(path):
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error}); expected COCO's results; check the path") from None
    if not text.strip():
        raise InputError(f"{path}: found an empty file; expected COCO's results, or [] for none; write the file again")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid JSON ({error}); expected COCO's results; write the file again") from None
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: not a list; expected COCO's results, a list of objects with image_id, bbox and score"
        )
    return entries


def _result(where, entry, fields):
    if not isinstance(entry, dict) or any(field not in entry for field in fields):
        needed = f"{', '.join(fields[:-1])} and {fields[-1]}"
        raise InputError(f"{where}: found {reprlib.repr(entry)}; expected {needed}; add what is missing")
    image_id, box, score = entry["image_id"], entry["bbox"], entry.get("score")
    if isinstance(image_id, bool) or not isinstance(image_id, (int, float, str)):
        raise InputError(f"{where}: found the image {reprlib.repr(image_id)}; expected a number or a string")
    sides = tuple(map(finite, box)) if isinstance(box, list) and len(box) == 4 else (None,)
    if None in sides:
        raise InputError(
            f"{where}: found the bbox {reprlib.repr(box)}; expected four finite numbers, x, y, width and height in "
            "pixels; correct the detector's output"
        )
    number = finite(score)
    if number is None and (score is not None or "score" in fields):
        raise InputError(
            f"{where}: found the score {reprlib.repr(score)}; expected a finite number; the model may have diverged"
        )
    names = [entry.get(key) for key in ("file_name", "category_name")]
    file_name, category_name = (name if isinstance(name, str) and name else None for name in names)
    image_id = int(image_id) if isinstance(image_id, float) and image_id.is_integer() else image_id
    return Result(where, image_id, entry.get("category_id"), sides, number, file_name, category_name)
