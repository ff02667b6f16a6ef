"""Reads Label Studio's JSON exports, JSON and JSON-MIN."""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS, find_image
from tf_fast_rcnn.data.parsing import whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.documents import NO_AREA, TO_BOXES, fields_of, load_json, name_in, numbers_of
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.outlines import ellipse_box, polygon_box, rotated_box
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels", "brushlabels", "keypointlabels")
# What Label Studio puts in front of the name of an uploaded file.
_UPLOAD = re.compile(r"[0-9a-f]{8}-")


def read_label_studio(
    path: StrPath, images: StrPath | None = None, class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads tasks that Label Studio exported as JSON or JSON-MIN.

    - Boxes are in percent of the image. Rotated boxes, polygons and ellipses are replaced by their bounding boxes;
      brush strokes and points are skipped. Both are counted in `fixes`.
    - Of several annotations of a task, the first that was not cancelled is read. A task without annotations has not
      been labelled yet: it is skipped and counted. An annotation without regions is an image without objects.
    - The image is the end of the task's URL: the path of an upload with or without the eight characters that Label
      Studio puts in front of the name, the `d` of local files, or the path in a bucket. `image_id` is the path of the
      file that was found, relative to `images`.

    Args:
        path: the JSON file.
        images: folder of the images; default: the folder of the JSON file.
        class_names: the classes in the order of their ids 1..K; default: those found, sorted.
        skip_bad: leave out unreadable annotations and images, and count them in `fixes`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for another kind of file, a class that is not in `class_names`, and, without `skip_bad`, for invalid
            annotations and images.

    Example:
        >>> train = read_label_studio("project-1.json", "images")           # doctest: +SKIP
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    tasks = load_json(path, "Label Studio's export")
    if not is_label_studio(tasks):
        raise InputError(f"{path}: found no tasks; expected Label Studio's export as JSON or JSON-MIN")
    fixes = Counter()
    labelled = [task for task in tasks if _results(task) is not None]
    fixes["tasks without annotations skipped"] += len(tasks) - len(labelled)
    fixes["annotations after the first of a task ignored"] += sum(max(_number(task) - 1, 0) for task in labelled)
    annotations = read_each(lambda task: _read_task(path, folder, task, fixes), labelled, skip_bad, fixes)
    name = f"label-studio:{path}" + ("" if images is None else f",{images}")
    return to_dataset(name, annotations, class_names, fixes)


def is_label_studio(content: object) -> bool:
    """Whether the content of a JSON file is a list of Label Studio's tasks, with or without annotations."""
    return isinstance(content, list) and bool(content) and all(_is_task(task) for task in content)


def _is_task(task):
    return isinstance(task, dict) and _image_url(task) is not None and ("data" in task or "id" in task)


def _image_url(task):
    """The value of the task's data that is the address of an image."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    texts = [value for value in data.values() if isinstance(value, str)]
    names = [_names(value)[0].lower() for value in texts]
    return next((text for text, name in zip(texts, names, strict=True) if name.endswith(IMAGE_EXTENSIONS)), None)


def _names(url):
    """The names that the file of a URL may have below the folder of the images."""
    try:
        parts = urllib.parse.urlsplit(url.replace("\\", "/"))
    except ValueError:
        return [url]
    local = urllib.parse.parse_qs(parts.query).get("d")
    name = (local[0] if local else urllib.parse.unquote(parts.path)).replace("\\", "/").lstrip("/")
    folder, slash, last = name.rpartition("/")
    return [name, folder + slash + _UPLOAD.sub("", last, count=1)] if _UPLOAD.match(last) else [name]


def _annotations(task):
    found = task.get("annotations", task.get("completions"))
    usable = found if isinstance(found, list) else []
    return [each for each in usable if isinstance(each, dict) and not each.get("was_cancelled")]


def _number(task):
    return len(_annotations(task)) if "data" in task else 1


def _results(task):
    """The regions of a task; None if it has not been annotated."""
    if isinstance(task.get("data"), dict):
        annotations = _annotations(task)
        found = annotations[0].get("result") if annotations else None
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else None
    if task.get("annotation_id", 0) is None:
        return None
    # JSON-MIN: the regions of each tag of the labelling interface are a list under the tag's name.
    regions = [item for value in task.values() if isinstance(value, list) for item in value if isinstance(item, dict)]
    return [{"value": item, **item} for item in regions]


def _read_task(path, folder, task, fixes):
    url = _image_url(task)
    source = f"{path}, task {task.get('id')} ({url})"
    results = [(number, item) for number, item in enumerate(_results(task), 1) if _is_region(item)]
    stated = _stated_size(source, [item for _, item in results])
    counted = Counter()
    found = [_object(f"{source}, region {number}", item, counted) for number, item in results]
    objects = [item for item in found if item is not None]
    image = _find(source, folder, url)
    annotation = annotate(source, name_in(image, folder), image, objects, box_algebra.from_xyxy, fixes, stated)
    fixes.update(counted)
    return annotation


def _is_region(item):
    """Whether a result is a region with labels, rather than a choice, text or relation, or a shape without them."""
    value = item.get("value")
    return isinstance(value, dict) and any(value.get(name) for name in _LABELS)


def _stated_size(source, results):
    """The `(height, width)` to which the percentages of all regions refer."""
    sizes = {(whole_pixels(item.get("original_height")), whole_pixels(item.get("original_width"))) for item in results}
    if len(sizes) > 1 or (results and (None in next(iter(sizes)) or 0 in next(iter(sizes)))):
        raise InputError(f"{source}: found no original_width and original_height; expected those of the image")
    turned = next((item for item in results if item.get("image_rotation")), None)
    if turned is not None:
        raise InputError(
            f"{source}: found image_rotation {turned['image_rotation']}; expected 0; turn the image file instead and "
            "label it again"
        )
    return next(iter(sizes), (0, 0))


def _object(source, item, counted):
    """The object of a region in pixels; None if it has no area."""
    value = item["value"]
    height, width = whole_pixels(item["original_height"]), whole_pixels(item["original_width"])
    labels = next(value[name] for name in _LABELS if value.get(name))
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise InputError(f"{source}: found the labels {str(labels)[:40]}; expected one label; correct the region")
    degrees = fields_of(source, value, ("rotation",))[0] if value.get("rotation") is not None else 0.0
    if "points" in value:
        counted[TO_BOXES] += 1
        numbers = numbers_of(source, value["points"], "points [x, y]")
        corners = polygon_box(numbers[: len(numbers) // 2 * 2])
        corners = _pixels(corners, height, width)
    elif "radiusX" in value:
        counted[TO_BOXES] += 1
        x, y, radius_x, radius_y = fields_of(source, value, ("x", "y", "radiusX", "radiusY"))
        corners = ellipse_box(*_pixels((x, y, radius_x, radius_y), height, width), degrees)
    elif "height" in value and "x" in value:
        counted[TO_BOXES] += bool(degrees)
        x, y, box_width, box_height = fields_of(source, value, ("x", "y", "width", "height"))
        corners = _pixels((x, y, x + box_width, y + box_height), height, width)
        corners = rotated_box(corners, degrees, about=corners[:2])
    else:
        counted[NO_AREA] += 1
        return None
    return AnnotatedObject(labels[0], corners)


def _pixels(percentages, height, width):
    return tuple(value * side / 100 for value, side in zip(percentages, (width, height, width, height), strict=True))


def _find(source, folder, url):
    *others, last = _names(url)
    for name in others:
        try:
            return find_image(source, folder, name)
        except InputError:
            continue
    return find_image(source, folder, last)
