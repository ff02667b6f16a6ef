"""Reads COCO's instances JSON: images, categories and annotations with boxes [x, y, width, height].

The format is documented at https://cocodataset.org/#format-data ("object detection"). Exports of other tools may have
file names with folders, no crowds, or categories without objects.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import annotation_order
from tf_fast_rcnn.data.image_files import find_image
from tf_fast_rcnn.data.parsing import finite, whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.outlines import coco_outline_box
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath


def read_coco(
    path: StrPath,
    images: StrPath | None = None,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    boxes_order: str | None = None,
) -> DetectionDataset:
    """Reads a COCO instances file. Only the headers of images are read.

    - The classes are the file's categories in the order of their ids, which may have gaps (COCO's 80 ids are in 1..90):
      class id 1 is the lowest category id. `coco_category_ids` returns the category ids, to write COCO's results.
      The root category of Roboflow's exports, which only groups the others, is left out and counted.
    - `image_id` of a record is the image's id as text, and `source_id` the id itself, for results. Images without
      annotations are kept; files that the JSON does not list are ignored, and so are annotation ids.
    - Boxes are clipped to the image; those without area are dropped. Both are counted in `fixes`.
    - `iscrowd` marks crowds. `area`, if it is a number above 0, sets the object's size class in COCO's evaluation;
      segmentation masks are ignored, unless an annotation has no `bbox`: then the mask's bounding box is read.
    - LVIS's files are read too: its images have no `file_name`, but a `coco_url`, whose end is the name.
    - The stated image size must be that of the file; see `read_voc` for the effect of EXIF orientation.

    Args:
        path: the JSON file.
        images: folder of the images; default: the folder of the JSON file. See `find_image` for names with folders.
        class_names: the classes in the order of their ids 1..K; default: the categories as described above.
        skip_bad: leave out missing or unreadable images, those with invalid annotations, and annotations of images that
            are not listed, and count them in `fixes`, instead of raising.
        boxes_order: one of `ANNOTATION_ORDERS`, for files whose boxes are not x, y, width and height in pixels.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for another kind of file, two images or categories with the same id, a class that is not in
            `class_names`, boxes that fit in another order or unit only, and, without `skip_bad`, for missing or invalid
            images or annotations, in one message.

    Example:
        >>> train = read_coco("annotations/instances_train2017.json", "train2017")              # doctest: +SKIP
        >>> val = read_coco("annotations/instances_val2017.json", "val2017", train.class_names) # doctest: +SKIP
    """
    path, folder = Path(path), _image_folder(path, images)
    to_relative = box_algebra.from_coco if boxes_order is None else annotation_order(boxes_order)
    fixes = Counter()
    content = _load(path)
    names = _category_names(path, content)
    entries = _by_id(path, content, "images")
    annotations = _by_image(path, content, entries, skip_bad, fixes)

    def read_image(image_id):
        return _read_image(path, folder, entries[image_id], annotations.get(image_id, ()), names, to_relative, fixes)

    found = read_each(read_image, entries, skip_bad, fixes)
    if class_names is None:
        class_names = _without_root(content, names, fixes)
    return to_dataset(_spec(path, images), found, class_names, fixes, is_coco=True)


def read_coco_images(
    path: StrPath, images: StrPath | None = None, class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads the images of a COCO file without annotations, which the image info files of COCO's test sets do not have.

    Args:
        path, images, skip_bad: as in `read_coco`; annotations are not read.
        class_names: the classes 1..K; default: the categories of the file. The images have no objects.

    Raises:
        InputError: for another kind of file, two images with the same id, and, without `skip_bad`, for missing or
            unreadable images.

    Example:
        >>> test = read_coco_images("image_info_test-dev2017.json", "test2017", train.class_names)   # doctest: +SKIP
    """
    path, folder = Path(path), _image_folder(path, images)
    fixes = Counter()
    content = _load(path, ("images",) if class_names is not None else ("images", "categories"))
    if class_names is None:
        class_names = list(_category_names(path, content).values())
    entries = _by_id(path, content, "images")

    def read_image(image_id):
        return _read_image(path, folder, entries[image_id], (), {}, box_algebra.from_coco, fixes)

    return to_dataset(_spec(path, images), read_each(read_image, entries, skip_bad, fixes), class_names, fixes)


def _image_folder(path, images):
    return Path(path).parent if images is None else Path(images)


def _spec(path, images):
    return f"coco:{path}" + ("" if images is None else f",{images}")


def coco_category_ids(path: StrPath) -> dict[str, int]:
    """The category id of each class name in a COCO file, `{"person": 1, ...}`, which COCO's results format needs.

    Args:
        path: a JSON file with "categories", such as the annotations that the classes come from.

    Raises:
        InputError: if the file is missing or invalid, or has no categories.

    Example:
        >>> coco_category_ids("annotations/instances_val2017.json")["toothbrush"]           # doctest: +SKIP
        90
    """
    path = Path(path)
    return {name: number for number, name in _category_names(path, _load(path, ("categories",))).items()}


def _load(path, keys=("images", "annotations", "categories")):
    try:
        content = json.loads(path.read_bytes(), object_hook=_without_outline)
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the file ({error}); expected COCO's instances JSON; check the path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid JSON ({error}); expected COCO's instances JSON; fix the file") from None
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(
                f"{path}: found no list {key!r}; expected COCO's instances JSON with images, annotations and categories"
            )
    return content


def _without_outline(value):
    """Drops segmentation masks, which are most of a COCO file, during parsing to save memory.

    An annotation without a box gets that of its mask.
    """
    segmentation = value.pop("segmentation", None)
    if segmentation and not value.get("bbox") and "image_id" in value:
        box = coco_outline_box(segmentation)
        value["bbox"] = None if box is None else [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    return value


def _by_id(path, content, key):
    """The entries of a list by their id."""
    found = {}
    for position, entry in enumerate(content[key]):
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_id(number):
            raise InputError(f"{path}: found no id in {key}[{position}]; expected a whole number")
        if number in found:
            raise InputError(f"{path}: found the id {number!r} twice in {key}; expected unique ids; renumber them")
        found[number] = entry
    if len({type(number) for number in found}) > 1:
        raise InputError(f"{path}: found both numbers and text as ids in {key}; expected numbers; renumber them")
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
            raise InputError(f"{path}: found no name for category {number!r}; expected text; add it")
        if name in names.values():
            raise InputError(f"{path}: found the category {name!r} twice; expected each name once; rename one")
        names[number] = name
    return names


def _without_root(content, names, fixes):
    """The names of the categories but for the root of Roboflow's exports, which is a name of the whole data set."""
    used = {entry.get("category_id") for entry in content["annotations"] if _is_id(entry.get("category_id"))}
    groups = Counter(entry.get("supercategory") for entry in content["categories"])
    roots = [
        entry["name"]
        for entry in content["categories"]
        if entry.get("supercategory") in ("none", "") and entry["id"] not in used and groups[entry["name"]]
    ]
    fixes["categories that only group others and have no objects left out"] += len(roots)
    return [name for name in names.values() if name not in roots]


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


def _read_image(path, folder, entry, annotations, names, to_relative, fixes):
    file_name = entry.get("file_name") or _end_of_url(entry.get("coco_url"))
    if not isinstance(file_name, str) or not file_name:
        raise InputError(f"{path}: found no file_name for image {entry['id']!r}; expected the image file; add it")
    source = f"{path}, image {file_name}"
    stated = [_side(source, entry, side) for side in ("height", "width")]
    objects = [_object(source, annotation, names) for annotation in annotations]
    image_path = find_image(source, folder, file_name)
    return annotate(source, str(entry["id"]), image_path, objects, to_relative, fixes, stated, source_id=entry["id"])


def _end_of_url(url):
    """The folder and name of the file in LVIS's `coco_url`, "val2017/000000397133.jpg"."""
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else None


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
            "height; fix or remove the annotation"
        )
    area = finite(annotation.get("area"))
    area = area if area and area > 0 else None
    return AnnotatedObject(names[category], corners, crowd=annotation.get("iscrowd") in (1, True), area=area)
