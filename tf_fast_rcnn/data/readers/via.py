"""Reads the JSON files of the VGG Image Annotator (VIA), versions 1 and 2: exports and projects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.image_files import find_image
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.documents import NO_AREA, TO_BOXES, fields_of, load_json, numbers_of, text_of
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.outlines import Corners, ellipse_box
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# Names of the attribute that holds the class, if regions have several attributes.
_CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "object")


def read_via(
    path: StrPath, images: StrPath | None = None, class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads annotations of VIA 1 or 2 as JSON, or a project of VIA 2.

    - The class is the region attribute class, label, name, type, category or object, or else the only one. Of
      checkboxes, the checked one is taken.
    - Rectangles are pixel edges, 0-based and continuous. Polygons, circles and ellipses are replaced by their bounding
      boxes; points and lines are skipped. Both are counted in `fixes`.
    - `image_id` is the file name. Images without regions have no objects.

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
        >>> train = read_via("via_region_data.json", "images")          # doctest: +SKIP
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    entries = via_images(load_json(path, "VIA's annotations"))
    if entries is None:
        raise InputError(f"{path}: found no regions of images; expected VIA's annotations or project (JSON)")
    attribute = class_attribute(
        str(path), (region.get("region_attributes") for entry in entries for region in _regions(entry))
    )
    fixes = Counter()
    annotations = read_each(lambda entry: _read_image(path, folder, entry, attribute, fixes), entries, skip_bad, fixes)
    return to_dataset(f"via:{path}" + ("" if images is None else f",{images}"), annotations, class_names, fixes)


def via_images(content: Any) -> list[dict[str, Any]] | None:
    """The entries of the images in the content of a JSON file; None if it is not one of VIA."""
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    entries = list(content.values()) if isinstance(content, dict) else []
    if not entries or not all(isinstance(entry, dict) and {"filename", "regions"} <= set(entry) for entry in entries):
        return None
    return entries


def class_attribute(source: str, attributes: Iterable[Any]) -> str:
    """The name of the region attribute that holds the class; "" if there are no regions.

    Raises:
        InputError: if there are several attributes, none of which has a usual name.
    """
    names = {name for each in attributes if isinstance(each, Mapping) for name in each}
    usual = [name for known in _CLASS_ATTRIBUTES for name in sorted(names) if name.lower() == known]
    if not usual and len(names) > 1:
        raise InputError(
            f"{source}: found the region attributes {', '.join(sorted(names))}; expected the class in one of "
            f"{', '.join(_CLASS_ATTRIBUTES)}; rename the attribute with the class"
        )
    return next(iter(usual or names), "")


def region_object(source: str, shape: Any, attributes: Any, attribute: str, fixes: Counter[str]) -> Any:
    """The `AnnotatedObject` of a region; None if it has no area, which is counted in `fixes`.

    Args:
        source: the region's place, for error messages.
        shape, attributes: its `shape_attributes` and `region_attributes`.
        attribute: see `class_attribute`.
        fixes: `Counter` to which the numbers of skipped and replaced shapes are added.

    Raises:
        InputError: for a shape with missing numbers, or without a class.
    """
    kind = shape.get("name") if isinstance(shape, dict) else None
    if kind not in _SHAPES:
        fixes[NO_AREA] += 1
        return None
    fixes[TO_BOXES] += kind != "rect"
    value = attributes.get(attribute) if isinstance(attributes, Mapping) else None
    if isinstance(value, Mapping):
        chosen = [name for name, checked in value.items() if checked]
        value = chosen[0] if len(chosen) == 1 else None
    return AnnotatedObject(text_of(source, value, f"the class ({attribute})"), _SHAPES[kind](source, shape))


def _regions(entry):
    """The regions of an image: a list, or in VIA 1 a dict by their numbers."""
    regions = entry["regions"]
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    return [region for region in regions if isinstance(region, dict)] if isinstance(regions, list) else []


def _read_image(path, folder, entry, attribute, fixes):
    name = text_of(str(path), entry["filename"], "filename")
    source, counted = f"{path}, image {name}", Counter()
    found = [
        region_object(
            f"{source}, region {number}",
            region.get("shape_attributes"),
            region.get("region_attributes"),
            attribute,
            counted,
        )
        for number, region in enumerate(_regions(entry), 1)
    ]
    objects = [item for item in found if item is not None]
    annotation = annotate(source, name, find_image(source, folder, name), objects, box_algebra.from_xyxy, fixes)
    fixes.update(counted)
    return annotation


def _rectangle(source: str, shape: Any) -> Corners:
    x, y, width, height = fields_of(source, shape, ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def _polygon(source: str, shape: Any) -> Corners:
    xs, ys = (numbers_of(source, shape.get(name), f"numbers {name}") for name in ("all_points_x", "all_points_y"))
    return min(xs), min(ys), max(xs), max(ys)


def _circle(source: str, shape: Any) -> Corners:
    x, y, radius = fields_of(source, shape, ("cx", "cy", "r"))
    return ellipse_box(x, y, radius, radius)


def _ellipse(source: str, shape: Any) -> Corners:
    x, y, radius_x, radius_y = fields_of(source, shape, ("cx", "cy", "rx", "ry"))
    theta = fields_of(source, shape, ("theta",))[0] if "theta" in shape else 0.0
    return ellipse_box(x, y, radius_x, radius_y, math.degrees(theta))


_SHAPES = {"rect": _rectangle, "polygon": _polygon, "circle": _circle, "ellipse": _ellipse}
