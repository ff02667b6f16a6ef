"""Reads proposals from text files: CSV and COCO's results JSON."""

from __future__ import annotations

import array
import csv
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.data.coco_results import read_results
from tf_fast_rcnn.data.parsing import finite
from tf_fast_rcnn.data.proposals.tables import ProposalTable, Rows, one_line_errors
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_CSV_EXPECTED = "lines of image,ymin,xmin,ymax,xmax and optionally score"
_CSV_ORDER, _COCO_ORDER = "yxyx-relative", "xywh-edges"

# The columns of a coordinate order, by its first four letters, and their alternative names.
_COLUMNS = {
    "yxyx": ("ymin", "xmin", "ymax", "xmax"),
    "xyxy": ("xmin", "ymin", "xmax", "ymax"),
    "xywh": ("x", "y", "width", "height"),
    "yxhw": ("y", "x", "height", "width"),
}
_OTHER_NAMES = {
    "image": ("image_id", "filename", "file", "file_name", "path", "image_path", "image_name"),
    "xmin": ("x1", "x_min", "left"),
    "ymin": ("y1", "y_min", "top"),
    "xmax": ("x2", "x_max", "right"),
    "ymax": ("y2", "y_max", "bottom"),
    "x": ("xmin", "x1", "left"),
    "y": ("ymin", "y1", "top"),
    "width": ("w",),
    "height": ("h",),
    "score": ("confidence", "objectness"),
}


def read_proposal_csv(path: StrPath, order: str | None = None) -> ProposalTable:
    """Reads a CSV file with one proposal per line; the lines of an image need not be adjacent.

    Without a header, the columns are image, four numbers in the coordinate order (default: ymin, xmin, ymax, xmax,
    relative to the image) and optionally a score. With a header, they can be in any order: image, the coordinates (ymin
    or y1, ...; x, y, width, height for an order that begins with xywh) and optionally score; others are ignored.

    Args:
        path: the file, UTF-8, separated by commas.
        order: the coordinate order; None for the format's default.

    Returns:
        `ProposalTable`.

    Raises:
        InputError: for an invalid line or header.
    """
    with one_line_errors(path, _CSV_EXPECTED), open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        images = defaultdict(_GrowingRows)
        columns = None
        for fields in lines:
            if not any(fields):
                continue
            if columns is None:
                columns = _columns(path, fields, (order or _CSV_ORDER)[:4])
                if columns.is_header:
                    continue
            columns.add(f"{path}, line {lines.line_num}", fields, images)
        return ProposalTable({name: rows.finish() for name, rows in images.items()}, _CSV_ORDER)


class _GrowingRows:
    """Collects an image's rows compactly, as five 4-byte numbers each; NaN for no score."""

    def __init__(self):
        self._values = array.array("f")

    def add(self, corners, score):
        self._values.extend((*corners, score))

    def finish(self):
        values = np.array(self._values, np.float32).reshape(-1, 5)
        return Rows(values[:, :4], None if np.isnan(values[:, 4]).all() else values[:, 4])


class _Columns:
    """The positions of a CSV file's image name, its four coordinates in order, and its score (None if missing)."""

    def __init__(self, image, corners, score, is_header):
        self._image, self._corners, self._score, self.is_header = image, corners, score, is_header

    def add(self, source, fields, images):
        """Adds one line's box to its image's rows."""
        needed = (self._image, *self._corners) + (() if self._score is None else (self._score,))
        values = [finite(fields[place]) if place < len(fields) else None for place in needed[1:]]
        if None in values or not fields[self._image]:
            raise InputError(f"{source}: found {','.join(fields)[:80]!r}; expected {_CSV_EXPECTED}; fix the line")
        images[fields[self._image].strip()].add(values[:4], values[4] if len(values) == 5 else float("nan"))


def _columns(path, first, letters):
    """The `_Columns` of a file from its first line, which is a header if the second field is not a number."""
    if len(first) > 1 and finite(first[1]) is not None:
        return _Columns(0, (1, 2, 3, 4), 5 if len(first) > 5 else None, is_header=False)
    names = [name.strip().lower() for name in first]

    def place(column):
        return next((names.index(name) for name in (column, *_OTHER_NAMES[column]) if name in names), None)

    image, score = place("image"), place("score")
    corners = tuple(place(column) for column in _COLUMNS[letters])
    if None in (image, *corners):
        raise InputError(
            f"{path}: found the columns {', '.join(first)[:80]}; expected image, {', '.join(_COLUMNS[letters])} and "
            "optionally score; rename them, or pass another coordinate order"
        )
    return _Columns(image, corners, score, is_header=True)


def read_coco_results(path: StrPath) -> ProposalTable:
    """Reads a JSON file in COCO's results format: a list of `{"image_id", "bbox": [x, y, width, height], "score"}`.

    Returns:
        `ProposalTable`; scores are optional.

    Raises:
        InputError: for invalid JSON or unexpected content.
    """
    images = defaultdict(_GrowingRows)
    for result in read_results(path, ("image_id", "bbox")):
        images[str(result.image_id)].add(result.box, float("nan") if result.score is None else result.score)
    return ProposalTable({name: rows.finish() for name, rows in images.items()}, _COCO_ORDER)
