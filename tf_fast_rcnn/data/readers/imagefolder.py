"""Reads Hugging Face's image folders for object detection: images with a metadata.jsonl file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.image_files import find_image
from tf_fast_rcnn.data.parsing import finite, read_text, whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.documents import numbers_of, text_of
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

METADATA = ("metadata.jsonl", "metadata.csv")
_CATEGORIES = ("categories", "category", "labels", "label", "category_id", "category_ids")


def read_imagefolder(
    directory: StrPath, split: str = "", class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads one split of an image folder of Hugging Face `datasets` for object detection.

    - The split is the folder SPLIT, data/SPLIT or, if the split is "", `directory` itself. Its metadata.jsonl (or .csv)
      has one entry per image: `file_name`, relative to it, and `objects` with `bbox`, a list of x, y, width and height
      in pixels as in COCO, and `categories` (category, labels, label, category_id), of equal length. `area` and
      `iscrowd` are read if present, as in COCO.
    - Categories are names, or numbers from 0, whose names are those of the class label in the header of README.md; if
      there are none, the numbers themselves are the names.
    - `image_id` is `file_name`. Images without objects have empty lists.

    Args:
        directory: the folder.
        split: name of a folder, e.g. "train".
        class_names: the classes in the order of their ids 1..K; default: those of README.md, or those found.
        skip_bad: leave out unreadable entries and images, and count them in `fixes`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for a folder without metadata, a class that is not in `class_names`, and, without `skip_bad`, for
            invalid entries and images.

    Example:
        >>> train = read_imagefolder("cells", "train")              # doctest: +SKIP
    """
    directory = Path(directory)
    path = _metadata(directory, split)
    names = _class_names(directory)
    fixes = Counter()
    entries = _entries(path)
    annotations = read_each(lambda entry: _read_image(path, entry[0], entry[1], names, fixes), entries, skip_bad, fixes)
    if class_names is None:
        class_names = names or _in_order({item.name for each in annotations for item in each.objects})
    return to_dataset(f"imagefolder:{directory}" + (f"@{split}" if split else ""), annotations, class_names, fixes)


def _in_order(found):
    """Numbers by value, names by alphabet."""
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)


def _metadata(directory, split):
    folders = [directory / split, directory / "data" / split] if split else [directory]
    path = next((folder / name for folder in folders for name in METADATA if (folder / name).is_file()), None)
    if path is None:
        known = sorted({path.parent.name for name in METADATA for path in directory.glob(f"**/{name}")})
        raise InputError(
            f"{folders[0]}: found no metadata.jsonl; expected one that lists the images and their objects; "
            + (f"add one of @{', @'.join(known)}" if known else "check the path")
        )
    return path


def _entries(path):
    """`(number of the line, entry)` of each image."""
    text = read_text(path, "one image per line")
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        try:
            return [(number, row) for number, row in enumerate(rows, 2)]
        except csv.Error as error:
            raise InputError(f"{path}: invalid CSV ({error}); expected file_name and objects; fix it") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: found no entries; expected one line of JSON for each image")
    return [(number, _parse(f"{path}, line {number}", line)) for number, line in lines]


def _parse(source, text):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: invalid JSON ({error}); expected file_name and objects; fix the line") from None


def _class_names(directory):
    """The names of a class label in the YAML header of README.md; [] if there are none."""
    path = directory / "README.md"
    header = re.match(r"---\n(.*?)\n---", read_text(path, "a dataset card"), re.DOTALL) if path.is_file() else None
    names = re.search(r"class_label:\s*\n\s*names:\s*\n((?:\s+['\"]?\d+['\"]?:.*\n?)+)", header[1]) if header else None
    if names is None:
        return []
    try:
        numbered = yaml.load(names[1], Loader=yaml.BaseLoader)
        return [numbered[key] for key in sorted(numbered, key=int)]
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: invalid names of the class label ({reason}); correct the header") from None


def _read_image(path, number, entry, names, fixes):
    source = f"{path}, line {number}"
    file_name = text_of(source, entry.get("file_name") if isinstance(entry, dict) else None, "file_name")
    objects = entry.get("objects")
    objects = _parse(source, objects) if isinstance(objects, str) and objects else objects
    found = [_object(source, item, names) for item in _items(source, objects)]
    stated = tuple(whole_pixels(entry.get(side)) or 0 for side in ("height", "width"))
    image = find_image(source, path.parent, file_name)
    return annotate(source, file_name, image, found, box_algebra.from_coco, fixes, stated)


def _items(source, objects):
    """`(bbox, category, area, iscrowd)` of each object, from a dict of lists or a list of dicts."""
    if not objects:
        return []
    if isinstance(objects, list) and all(isinstance(item, dict) for item in objects):
        key = next((name for name in _CATEGORIES if name in objects[0]), "categories")
        return [(item.get("bbox"), item.get(key), item.get("area"), item.get("iscrowd")) for item in objects]
    key = next((name for name in _CATEGORIES if isinstance(objects, dict) and name in objects), None)
    columns = [objects.get(name) for name in ("bbox", key)] if key else [None]
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        raise InputError(
            f"{source}: found no objects with `bbox` and `categories` of equal length; expected a list of boxes and a "
            "list of categories; correct the entry"
        )
    more = [objects.get(name) for name in ("area", "iscrowd")]
    same = [values if isinstance(values, list) and len(values) == len(columns[0]) else None for values in more]
    return list(zip(*columns, *(values or [None] * len(columns[0]) for values in same), strict=True))


def _object(source, item, names):
    box, category, area, crowd = item
    corners = numbers_of(source, box, "x, y, width and height")
    if len(corners) != 4:
        raise InputError(
            f"{source}: found a box of {len(corners)} numbers; expected x, y, width and height; correct it"
        )
    if isinstance(category, int) and not isinstance(category, bool):
        if names and not 0 <= category < len(names):
            raise InputError(f"{source}: found the category {category}; expected 0 to {len(names) - 1}; correct it")
        category = names[category] if names else str(category)
    area = finite(area)
    return AnnotatedObject(
        text_of(source, category, "the category"),
        tuple(corners),
        crowd=crowd in (1, True),
        area=area if area and area > 0 else None,
    )
