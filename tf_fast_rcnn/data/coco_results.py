"""COCO's results format (https://cocodataset.org/#format-results): its rows, and reading files of them.

A file is a JSON list of `{"image_id": 42, "category_id": 18, "bbox": [x, y, width, height], "score": 0.9}`, with boxes
in pixels, 0-based and continuous.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.parsing import finite
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
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


def result_rows(
    boxes: np.ndarray,
    class_ids: np.ndarray,
    scores: np.ndarray,
    image_id: int | str,
    image_size: tuple[int, int],
    category_ids: Mapping[int, int] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one image.

    Args:
        boxes, class_ids, scores: as in `Detections`.
        image_id: as it is written.
        image_size: height and width in pixels.
        category_ids: category id by class id; None for the class ids themselves.
    """
    windows = np.round(box_algebra.to_coco(np.asarray(boxes, np.float64), *image_size), 3)
    return [
        {
            "image_id": image_id,
            "category_id": label if category_ids is None else category_ids[label],
            "bbox": window.tolist(),
            "score": float(score),
        }
        for window, label, score in zip(windows, class_ids.tolist(), scores, strict=True)
    ]


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
