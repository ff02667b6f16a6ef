"""CSV files whose columns are not those of `csv_boxes`: each line is translated to its columns.

| dialect | known by |
| --- | --- |
| Open Images | the columns ImageID, LabelName, XMin, XMax, YMin and YMax: relative corners |
| VIA | the columns region_shape_attributes and region_attributes, which contain JSON |
| a box in one column (Kaggle) | a column bbox with `[x, y, width, height]` |
| corner and size (makesense) | columns x, y, width, height, or x, y, w, h, or bbox_x, ..., or eight without header |
| Vertex AI, AutoML | no header; TRAINING, VALIDATION or TEST, a path, a label and four relative corners |
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tf_fast_rcnn.data.parsing import finite, read_text
from tf_fast_rcnn.data.readers.documents import numbers_of
from tf_fast_rcnn.data.readers.via import class_attribute, region_object
from tf_fast_rcnn.errors import InputError

Row = tuple[int, list[str]]
# A line as csv_boxes reads it: text by column.
Values = dict[str, str]

_FILE_NAMES = ("filename", "file_name", "image_name", "image", "image_id", "imageid", "path", "file")
_CLASS_NAMES = ("class", "label", "label_name", "class_name", "name", "category")
_CORNER_AND_SIZE = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("left", "top", "width", "height"),
)
_OPEN_IMAGES = {"imageid", "labelname", "xmin", "xmax", "ymin", "ymax"}
_VIA_COLUMNS = ("region_shape_attributes", "region_attributes")
_VIA = {"filename", *_VIA_COLUMNS}
_ML_USES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validate": "validation",
    "test": "test",
    "unassigned": "unassigned",
}


class Translated(NamedTuple):
    """The lines of a file with the columns of `csv_boxes`; `relative` says that corners are 0 to 1."""

    lines: list[tuple[int, Values]]
    relative: bool = False


def translate(path: Path, first: list[str], rows: Iterable[Row], split: str, fixes: Counter[str]) -> Translated | None:
    """The lines of a file in another dialect; None if it has the columns of `csv_boxes`.

    Args:
        path: the file.
        first: the fields of its first line, which is not empty.
        rows: `(line number, fields)` of the other lines; they are read only for other dialects.
        split: "train", "validation" or "test" of a file of Vertex AI; "" otherwise.
        fixes: `Counter` to which the numbers of replaced and skipped shapes are added.

    Raises:
        InputError: for invalid lines, and for a split of a file that has none.
    """
    header = [name.lower() for name in first]
    if _is_vertex(first):
        return _vertex(path, [(1, first), *rows], split)
    if split:
        raise InputError(f"{path}: found no splits; expected a file of Vertex AI for @{split}; leave it out")
    names = set(header)
    if names >= _OPEN_IMAGES:
        return _open_images(path, header, rows)
    if names >= _VIA:
        return Translated(list(_via(path, header, rows, fixes)))
    if _is_makesense(first):
        return Translated([_makesense(row) for row in [(1, first), *rows]])
    columns = None if names & {"xmin", "x1", "x_min", "xmax", "x2", "right"} else _box_columns(header)
    return Translated([_from_size(path, header, columns, row) for row in rows]) if columns else None


def _fields(header, row):
    return dict(zip(header, [*row, *[""] * len(header)], strict=False))


def _first_of(values, names):
    return next((values[name] for name in names if values.get(name)), "")


def _corners(values):
    return dict(zip(("xmin", "ymin", "xmax", "ymax"), map(str, values), strict=True))


def _open_images(path, header, rows):
    described = _class_descriptions(path.parent)
    lines = []
    for number, row in rows:
        fields = _fields(header, row)
        values = {name: fields[name] for name in ("xmin", "ymin", "xmax", "ymax")}
        name = described.get(fields["labelname"], fields["labelname"])
        values |= {"filename": fields["imageid"], "class": name, "crowd": fields.get("isgroupof", "")}
        lines.append((number, values))
    return Translated(lines, relative=True)


def _class_descriptions(folder):
    """The names of Open Images' classes ("/m/01yrx" -> "Cat"), if class-descriptions*.csv is next to the file."""
    path = next(iter(sorted(folder.glob("*class-descriptions*.csv"))), None)
    rows = csv.reader(read_text(path, "class descriptions").splitlines()) if path else ()
    return {row[0].strip(): row[1].strip() for row in rows if len(row) >= 2}


def _via(path, header, rows, fixes):
    parsed = [(number, _fields(header, row)) for number, row in rows]
    content = [
        (number, values["filename"], *(_json(path, number, values, name) for name in _VIA_COLUMNS))
        for number, values in parsed
    ]
    attribute = class_attribute(str(path), (attributes for *_, attributes in content))
    for number, filename, shape, attributes in content:
        if not shape:
            yield number, {"filename": filename, **dict.fromkeys(("xmin", "ymin", "xmax", "ymax", "class"), "")}
            continue
        item = region_object(f"{path}, line {number}", shape, attributes, attribute, fixes)
        if item is not None:
            yield number, {"filename": filename, "class": item.name, **_corners(item.corners)}


def _json(path, number, values, name):
    try:
        return json.loads(values[name] or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}, line {number}: invalid JSON in {name} ({error}); expected VIA's annotations; export them again"
        ) from None


def _box_columns(header):
    """The column or columns of a box as corner and size; None if there are none."""
    if "bbox" in header:
        return ("bbox",)
    return next((columns for columns in _CORNER_AND_SIZE if set(columns) <= set(header)), None)


def _from_size(path, header, columns, row):
    number, fields = row
    values = _fields(header, fields)
    line = {"filename": _first_of(values, _FILE_NAMES)}
    named = any(name in header for name in _CLASS_NAMES)
    # Kaggle's sets of one class have no column for it.
    line["class"] = _first_of(values, _CLASS_NAMES) if named else "object"
    for side in ("width", "height"):
        line[side] = _first_of(values, (f"image_{side}", *(() if side in columns else (side,))))
    texts = [values[column] for column in columns]
    if not any(texts):
        return number, line | dict.fromkeys(("xmin", "ymin", "xmax", "ymax", "class"), "")
    box = texts[0].strip("[]() ").replace(";", ",").split(",") if columns == ("bbox",) else texts
    expected = f"x, y, width and height in {', '.join(columns)}"
    x, y, width, height = _four(f"{path}, line {number}", box, expected)
    return number, line | _corners((x, y, x + width, y + height))


def _four(source, texts, expected):
    numbers = numbers_of(source, texts, expected)
    if len(numbers) != 4:
        raise InputError(f"{source}: found {len(numbers)} numbers; expected {expected}; fix or remove the line")
    return numbers


def _is_makesense(first):
    """label, x, y, width, height, image_name, image_width, image_height, without a header."""
    numbers = [finite(field) is not None for field in first]
    return numbers[1:] == [True] * 4 + [False] + [True] * 2


def _makesense(row):
    number, (label, *box, filename, width, height) = row[0], [*row[1], *[""] * 8][:8]
    x, y, box_width, box_height = (finite(value) for value in box)
    corners = ("", "", "", "") if None in (x, y, box_width, box_height) else (x, y, x + box_width, y + box_height)
    return number, {"filename": filename, "class": label, "width": width, "height": height, **_corners(corners)}


def _is_vertex(first):
    """[ML_USE,]path,label,x_min,y_min,x_max,y_min,x_max,y_max,x_min,y_max; some corners may be empty."""
    start = 1 if len(first) == 11 and first[0].lower() in {*_ML_USES, ""} else 0
    corners = first[start + 2 :]
    return (
        len(first) - start == 10
        and "." in first[start]
        and all(not text or finite(text) is not None for text in corners)
    )


def _vertex(path, rows, split):
    rows = [(number, row if len(row) == 11 else ["", *row]) for number, row in rows]
    uses = {number: _ML_USES.get(row[0].lower(), "unassigned") for number, row in rows}
    known = sorted(set(uses.values()))
    if (split or len(known) > 1) and split not in known:
        raise InputError(
            f"{path}: {f'no split {split!r}' if split else 'found several splits'}; expected one of "
            f"{', '.join(known)}; add it to the file's name as @SPLIT"
        )
    lines = []
    for number, row in rows:
        if split in ("", uses[number]):
            filename, label = [*row, "", "", ""][1:3]
            numbers = [finite(text) for text in row[3:] if text]
            if None in numbers or len(numbers) not in (0, 4, 8):
                raise InputError(
                    f"{path}, line {number}: found {','.join(row[3:])!r}; expected corners of a box, 0 to 1"
                )
            xs, ys = numbers[::2], numbers[1::2]
            corners = (min(xs), min(ys), max(xs), max(ys)) if numbers else ("", "", "", "")
            lines.append((number, {"filename": filename, "class": label, **_corners(corners)}))
    return Translated(lines, relative=True)
