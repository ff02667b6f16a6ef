"""Reads CVAT's own XML files, "CVAT for images 1.1"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.image_files import find_image
from tf_fast_rcnn.data.parsing import finite, whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.documents import NO_AREA, TO_BOXES, numbers_of, text_of
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.outlines import ellipse_box, polygon_box, rotated_box
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


def read_cvat(
    path: StrPath,
    images: StrPath | None = None,
    split: str = "",
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> DetectionDataset:
    """Reads a file in the format "CVAT for images 1.1".

    - Boxes are pixel edges, 0-based and continuous. Rotated boxes, polygons, ellipses and masks are replaced by their
      bounding boxes; polylines, points, cuboids and skeletons are skipped, and so are tags of whole images. Both are
      counted in `fixes`.
    - `image_id` is the image's name as in the file. Images without shapes have no objects.
    - The classes are the labels of the file's header in its order, else those found, sorted. CVAT's header in exports
      of a project or a task has them all.

    Args:
        path: the XML file.
        images: folder of the images; default: the folder images/ next to the file, or else the file's own folder.
        split: a subset of the file; "" for all images.
        class_names: the classes in the order of their ids 1..K; default: as described above.
        skip_bad: leave out unreadable annotations and images, and count them in `fixes`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for "CVAT for video" and other files, an unknown subset, a class that is not in `class_names`, and,
            without `skip_bad`, for invalid annotations and images.

    Example:
        >>> train = read_cvat("annotations.xml", "images")          # doctest: +SKIP
    """
    path = Path(path)
    beside = path.parent / "images"
    folder = Path(images) if images is not None else beside if beside.is_dir() else path.parent
    root = _parse(path)
    elements = root.findall("image")
    if not elements:
        kind = "tracks of a video" if root.find("track") is not None else "no images"
        raise InputError(f'{path}: found {kind}; expected "CVAT for images 1.1"; export the task in this format')
    if split:
        known = sorted({element.get("subset", "") for element in elements} - {""})
        if split not in known:
            raise InputError(f"{path}: no subset {split!r}; expected one of {', '.join(known) or 'none'}")
        elements = [element for element in elements if element.get("subset") == split]
    fixes = Counter()
    annotations = read_each(lambda element: _read_image(path, folder, element, fixes), elements, skip_bad, fixes)
    if class_names is None:
        class_names = _labels(root) or None
    name = f"cvat:{path}" + ("" if images is None else f",{images}") + (f"@{split}" if split else "")
    return to_dataset(name, annotations, class_names, fixes)


def _parse(path):
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except DefusedXmlException:
        raise InputError(f"{path}: found XML entities; expected plain XML; remove the <!ENTITY> lines") from None
    except (ParseError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: invalid XML ({reason}); expected CVAT's annotations; export them again") from None
    if root.tag != "annotations":
        raise InputError(f'{path}: found <{root.tag}>; expected <annotations>, as in "CVAT for images 1.1"')
    return root


def _labels(root):
    """The names of the labels in the header, without the parts of skeletons."""
    labels = [label for label in root.iterfind("meta/*/labels/label") if label.find("parent") is None]
    names = [(label.findtext("name") or "").strip() for label in labels]
    return [name for name in dict.fromkeys(names) if name]


def _read_image(path, folder, element, fixes):
    name = text_of(f"{path}, image {element.get('id')}", element.get("name"), "the image name")
    source = f"{path}, image {name}"
    stated = tuple(whole_pixels(element.get(side)) for side in ("height", "width"))
    if None in stated:
        raise InputError(f"{source}: found a size that is not a number; expected pixels; correct or remove it")
    counted = Counter()
    objects = [_object(f"{source}, shape {number}", shape, counted) for number, shape in enumerate(element, 1)]
    objects = [item for item in objects if item is not None]
    annotation = annotate(source, name, find_image(source, folder, name), objects, box_algebra.from_xyxy, fixes, stated)
    fixes.update(counted)
    return annotation


def _object(source, shape, counted):
    """The object of a shape; None if it has no area."""
    if shape.tag in _WITHOUT_AREA:
        counted[NO_AREA] += 1
        return None
    if shape.tag not in _CORNERS:
        return None  # a tag of the image
    corners = _CORNERS[shape.tag](source, shape)
    degrees = finite(shape.get("rotation", 0)) or 0.0
    if shape.tag == "box":
        corners = rotated_box(corners, degrees)
    counted[TO_BOXES] += shape.tag != "box" or bool(degrees)
    return AnnotatedObject(text_of(source, shape.get("label"), "the label"), tuple(corners))


def _numbers(source, shape, names):
    return numbers_of(source, [shape.get(name) for name in names], f"numbers {', '.join(names)}")


def _box(source, shape):
    return _numbers(source, shape, ("xtl", "ytl", "xbr", "ybr"))


def _polygon(source, shape):
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    numbers = numbers_of(source, points, "points x,y;x,y;...")
    if len(numbers) % 2:
        raise InputError(f"{source}: found a point without y; expected x,y;x,y;...; fix or remove the polygon")
    return polygon_box(numbers)


def _ellipse(source, shape):
    degrees = finite(shape.get("rotation", 0)) or 0.0
    return ellipse_box(*_numbers(source, shape, ("cx", "cy", "rx", "ry")), degrees)


def _mask(source, shape):
    left, top, width, height = _numbers(source, shape, ("left", "top", "width", "height"))
    return left, top, left + width, top + height


_CORNERS = {"box": _box, "polygon": _polygon, "ellipse": _ellipse, "mask": _mask}
