"""Reads CSV files with one box per line, as written by many tools."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import annotation_order
from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS, find_image
from tf_fast_rcnn.data.parsing import finite, read_text, whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.csv_dialects import translate
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_REQUIRED = ("filename", *_CORNERS, "class")
# Column -> alternative names; case is ignored.
_OTHER_NAMES = {
    "filename": ("file", "file_name", "path", "image", "image_path", "image_name", "image_id"),
    "class": ("label", "class_name", "name"),
    "xmin": ("x1", "x_min", "left"),
    "ymin": ("y1", "y_min", "top"),
    "xmax": ("x2", "x_max", "right"),
    "ymax": ("y2", "y_max", "bottom"),
    "difficult": ("is_difficult",),
    "crowd": ("iscrowd", "is_crowd"),
}
_COLUMN_OF = {other: name for name, others in _OTHER_NAMES.items() for other in others}


def read_csv(
    path: StrPath,
    images: StrPath | None = None,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    split: str = "",
    boxes_order: str | None = None,
) -> DetectionDataset:
    """Reads a CSV file with one box per line, with a header or, as in keras-retinanet, without one.

    - The header names the columns, in any order: filename, xmin, ymin, xmax, ymax, class and, optionally, difficult,
      crowd (1 or true), width and height (of the image; they are checked). Common alternatives such as x1, label and
      image are accepted; other columns are ignored. Without a header: filename, x1, y1, x2, y2, class.
    - Coordinates are pixels, 0-based, with continuous edges: a full 640-pixel side is 0 to 640.
    - A line with empty corners and class is an image without objects.
    - The lines of an image need not be adjacent. Its `image_id` is its file name as written.
    - The files of Open Images, Kaggle (a column bbox), VIA, makesense and Vertex AI are read too: see `csv_dialects`.
      The name of an image may lack its extension, and a file without a column for the class has one class, "object".
    - Fields are separated by commas, semicolons or tabs; the text is UTF-8.
    - Boxes are clipped to the image; those without area are dropped. Both are counted in `fixes`.

    Args:
        path: the CSV file; one file per split.
        images: folder of the images; default: the folder of the CSV file. See `find_image` for names with folders.
        class_names: the classes in the order of their ids 1..K; default: those found, sorted.
        skip_bad: leave out missing or unreadable images and those with an invalid line, and count them in `fixes`,
            instead of raising.
        boxes_order: one of `ANNOTATION_ORDERS`, for files whose xmin, ymin, xmax and ymax have another meaning.
        split: "train", "validation" or "test", for files of Vertex AI, which contain all of them.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for a file without these columns, boxes that are relative (0 to 1) or fit in another order or unit
            only, a class that is not in `class_names`, and, without `skip_bad`, for invalid lines or images, in one
            message.

    Example:
        >>> train = read_csv("labels/train.csv", "images")              # doctest: +SKIP
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    fixes = Counter()
    lines, relative = _lines_by_image(path, split, fixes)
    to_relative = _from_relative if relative else box_algebra.from_xyxy
    if boxes_order is not None:
        to_relative = annotation_order(boxes_order)
    elif not relative:
        _refuse_relative(path, lines)

    def read_image(file_name):
        return _read_image(path, folder, file_name, lines[file_name], to_relative, fixes)

    annotations = read_each(read_image, lines, skip_bad, fixes)
    name = f"csv:{path}" + (f"@{split}" if split else "") + ("" if images is None else f",{images}")
    return to_dataset(name, annotations, class_names, fixes)


def _from_relative(corners, height, width):
    return corners[:, [1, 0, 3, 2]]


def _lines_by_image(path, split, fixes):
    """`[(line number, {column: text})]` of each image by its file name, and whether the coordinates are relative."""
    rows = _rows(path)
    number, first = next(rows, (1, []))
    images = defaultdict(list)
    translated = translate(path, first, rows, split, fixes)
    if translated is not None:
        for number, values in translated.lines:
            _add_values(path, images, number, values)
        return images, translated.relative
    columns = _columns(path, first)
    if columns is None:
        columns = _REQUIRED
        _add(path, images, number, first, columns)
    for number, row in rows:
        _add(path, images, number, row, columns)
    return images, False


def _rows(path):
    """Yields the lines that are not empty, with their numbers."""
    text = read_text(path, "lines of filename, xmin, ymin, xmax, ymax, class")
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: found {error}; expected comma-separated values; fix the line"
        ) from None


def _columns(path, first):
    """The names of the columns; None if the first line is not a header."""
    if len(first) == len(_REQUIRED) and (finite(first[1]) is not None or not any(first[1:])):
        return None
    names = [_COLUMN_OF.get(name.lower(), name.lower()) for name in first]
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InputError(
            f"{path}: found no column {missing[0]} in {', '.join(first) or 'an empty file'}; expected a header with "
            f"{', '.join(_REQUIRED)}"
        )
    repeated = next((name for name in _COLUMN_OF.values() if names.count(name) > 1), None)
    if repeated:
        raise InputError(f"{path}: found two columns for {repeated}; expected one; remove the other")
    return names


def _add(path, images, number, row, columns):
    values = dict(zip(columns, row, strict=False))
    if len(row) < len(columns):
        values |= dict.fromkeys(columns[len(row) :], "")
    _add_values(path, images, number, values)


def _add_values(path, images, number, values):
    if not values["filename"]:
        raise InputError(
            f"{path}, line {number}: found no file name; expected that of an image; fix or remove the line"
        )
    images[values["filename"]].append((number, values))


def _refuse_relative(path, images):
    """InputError if no coordinate in the file exceeds 1, because in pixels no box would be larger than one pixel."""
    corners = [finite(values[name]) for lines in images.values() for _, values in lines for name in _CORNERS]
    corners = [value for value in corners if value is not None]
    if corners and max(corners) <= 1 and min(corners) >= 0:
        raise InputError(
            f"{path}: all coordinates are in the range 0 to 1; expected pixels; multiply them by the image's size, or "
            "pass --boxes-order xyxy-relative (boxes_order=...)"
        )


def _read_image(path, folder, file_name, lines, to_relative, fixes):
    number, first = lines[0]
    source = f"{path}, line {number}"
    stated = [_side(source, first, side) for side in ("height", "width")]
    objects = [_object(f"{path}, line {number}", values) for number, values in lines if not _is_background(values)]
    image_path = _find_image(source, folder, file_name)
    return annotate(source, file_name, image_path, objects, to_relative, fixes, stated)


def _find_image(source, folder, file_name):
    """The image of a name, which may be one without extension, as the ids of Kaggle and Open Images are."""
    if not file_name.lower().endswith(IMAGE_EXTENSIONS):
        for extension in IMAGE_EXTENSIONS:
            if os.path.isfile(folder / f"{file_name}{extension}"):
                return folder / f"{file_name}{extension}"
    return find_image(source, folder, file_name)


def _is_background(values):
    return not any(values[name] for name in _REQUIRED[1:])


def _side(source, values, side):
    pixels = whole_pixels(values.get(side))
    if pixels is None:
        raise InputError(f"{source}: found {side} {values[side]!r}; expected pixels; correct it or leave it empty")
    return pixels


def _object(source, values):
    corners = tuple(finite(values[name]) for name in _CORNERS)
    if None in corners:
        name = _CORNERS[corners.index(None)]
        raise InputError(f"{source}: found {name} {values[name]!r}; expected pixels; fix or remove the line")
    if not values["class"]:
        raise InputError(f"{source}: found no class; expected a name; add it or remove the line")
    difficult, crowd = (values.get(name, "").lower() in ("1", "true") for name in ("difficult", "crowd"))
    return AnnotatedObject(values["class"], corners, difficult, crowd)
