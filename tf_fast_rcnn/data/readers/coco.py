"""COCO's instances JSON: images, categories and annotations with boxes [x, y, width, height].

The format is that of https://cocodataset.org/#format-data ("object detection"); other tools export it too, with file
names in folders, without crowds, or with categories that have no objects.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.readers.annotations import (
    AnnotatedObject,
    annotate,
    find_image,
    finite,
    read_each,
    to_dataset,
    whole_pixels,
)
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath


def read_coco(
    path: StrPath, images: StrPath | None = None, class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads a COCO instances file. Of images only the headers are read.

    - Classes are the file's categories in the order of their ids, which may have gaps (COCO's 80 lie in 1..90):
      label 1 is the least id. `coco_category_ids` gives the ids back, for results in COCO's format.
    - `image_id` of a record is the image's id as text. Images without annotations are kept; files of the folder that
      the JSON does not list are not looked at. Annotations' own ids are not used.
    - Boxes beyond the image are clipped; those without area are dropped. Both are counted in `fixes`.
    - `iscrowd` marks crowds. `area`, where it is a number above 0, is the object's own, by which COCO's evaluation
      tells small from large; outlines ("segmentation") are not read.
    - The image's size must be that of its file; `read_voc` says what EXIF orientation does to it.

    Args:
        path: the JSON file.
        images: folder of the images; default: the folder of the JSON file. See `find_image` for names with folders.
        class_names: the classes in the order of their labels 1..K; default: as said above.
        skip_bad: leave out images that are missing, broken or badly annotated, and annotations of images that are not
            listed, counted in `fixes`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for another kind of file, two images or categories with one id, a class that is not in
            `class_names`, and, without `skip_bad`, for the first image or annotation that is missing or broken.

    Example:
        >>> train = read_coco("annotations/instances_train2017.json", "train2017")              # doctest: +SKIP
        >>> val = read_coco("annotations/instances_val2017.json", "val2017", train.class_names) # doctest: +SKIP
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    fixes = Counter()
    content = _load(path)
    names = _category_names(path, content)
    entries = _by_id(path, content, "images")
    annotations = _by_image(path, content, entries, skip_bad, fixes)

    def read_image(image_id):
        return _read_image(path, folder, entries[image_id], annotations.get(image_id, ()), names, fixes)

    name = f"coco:{path}" + ("" if images is None else f",{images}")
    found = read_each(read_image, entries, skip_bad, fixes)
    return to_dataset(name, found, list(names.values()) if class_names is None else class_names, fixes)


def coco_category_ids(path: StrPath) -> dict[str, int]:
    """The category id of each class name in a COCO file: `{"person": 1, ...}`, what results in COCO's format need.

    Raises:
        InputError: where the file is missing, broken or without categories.
    """
    path = Path(path)
    return {name: number for number, name in _category_names(path, _load(path)).items()}


def _load(path):
    try:
        content = json.loads(path.read_bytes(), object_hook=_without_outline)
    except OSError as error:
        raise InputError(
            f"{path}: found no readable file ({error}); expected COCO's instances JSON; check the path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: found broken JSON ({error}); expected COCO's instances JSON; mend it") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(
                f"{path}: found no list {key!r}; expected COCO's instances JSON with images, annotations and "
                "categories; give that file"
            )
    return content


def _without_outline(value):
    """Outlines are most of a COCO file: dropped while it is parsed, they do not fill the memory."""
    value.pop("segmentation", None)
    return value


def _by_id(path, content, key):
    """The entries of a list by their id."""
    found = {}
    for position, entry in enumerate(content[key]):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_id(number):
            raise InputError(f"{path}: found no id in {key}[{position}]; expected a whole number; add it")
        if number in found:
            raise InputError(f"{path}: found the id {number!r} twice in {key}; expected one of each; renumber them")
        found[number] = entry
    if len({type(number) for number in found}) > 1:
        raise InputError(f"{path}: found ids of {key} as numbers and as text; expected numbers; renumber them")
    return found


def _is_id(value):
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _category_names(path, content):
    """The name of each category by its id, in the order of the ids."""
    entries = _by_id(path, content, "categories")
    names = {}
    for number in sorted(entries):
        name = entries[number].get("name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: found no name of category {number!r}; expected text; add it")
        if name in names.values():
            raise InputError(f"{path}: found the category {name!r} twice; expected each once; rename one of them")
        names[number] = name
    return names


def _by_image(path, content, entries, skip_bad, fixes):
    """The annotations of each image by its id."""
    annotations = defaultdict(list)
    for position, entry in enumerate(content["annotations"]):
        number = entry.get("image_id") if isinstance(entry, dict) else None
        if _is_id(number) and number in entries:
            annotations[number].append(entry)
        elif skip_bad:
            fixes["annotations of images that are not listed skipped"] += 1
        else:
            raise InputError(
                f"{path}: found the image_id {reprlib.repr(number)} in annotations[{position}]; expected the id of one "
                "of the images; add the image or remove the annotation"
            )
    return annotations


def _read_image(path, folder, entry, annotations, names, fixes):
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not file_name:
        raise InputError(f"{path}: found no file_name of image {entry['id']!r}; expected the image's file; add it")
    source = f"{path}, image {file_name}"
    stated = [_side(source, entry, side) for side in ("height", "width")]
    objects = [_object(source, annotation, names) for annotation in annotations]
    image_path = find_image(source, folder, file_name)
    return annotate(source, str(entry["id"]), image_path, objects, box_algebra.from_coco, fixes, stated)


def _side(source, entry, side):
    pixels = whole_pixels(entry.get(side))
    if pixels is None:
        raise InputError(f"{source}: found {side} {reprlib.repr(entry[side])}; expected pixels; correct or remove it")
    return pixels


def _object(source, annotation, names):
    where = f"annotation {reprlib.repr(annotation.get('id'))}"
    category, box = annotation.get("category_id"), annotation.get("bbox")
    if not _is_id(category) or category not in names:
        raise InputError(
            f"{source}: found the category_id {reprlib.repr(category)} in {where}; expected the id of one of the "
            "categories; correct it"
        )
    corners = tuple(map(finite, box)) if isinstance(box, list) else ()
    if len(corners) != 4 or None in corners:
        raise InputError(
            f"{source}: found the bbox {reprlib.repr(box)} in {where}; expected four finite numbers, x, y, width and "
            "height; mend or remove the annotation"
        )
    area = finite(annotation.get("area"))
    area = area if area and area > 0 else None
    return AnnotatedObject(names[category], corners, crowd=annotation.get("iscrowd") in (1, True), area=area)
