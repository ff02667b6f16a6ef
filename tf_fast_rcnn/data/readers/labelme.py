"""Reads LabelMe's JSON files: one file per image, next to it, with the shapes drawn in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.image_files import find_image, is_image_file
from tf_fast_rcnn.data.parsing import whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.documents import NO_AREA, TO_BOXES, load_json, name_in, numbers_of, text_of
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.outlines import ellipse_box, polygon_box
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath


def read_labelme(
    directory: StrPath, class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads a folder, with its subfolders, of LabelMe's JSON files and their images.

    - The image of a JSON file is its `imagePath`, relative to it. `image_id` is the image's path relative to
      `directory`. Images without a JSON file have no objects; their number is counted in `fixes`.
    - Rectangles are pixel edges, 0-based and continuous. Polygons, oriented rectangles, circles and masks are replaced
      by their bounding boxes; points, lines and line strips have none and are skipped. Both are counted in `fixes`.
    - The points of a mask are the first and the last pixel of its box, both included.

    Args:
        directory: the folder.
        class_names: the classes in the order of their ids 1..K; default: the labels found, sorted.
        skip_bad: leave out unreadable annotations and images, and count them in `fixes`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for a folder without JSON files of LabelMe, a class that is not in `class_names`, and, without
            `skip_bad`, for invalid files.

    Example:
        >>> train = read_labelme("cells")               # doctest: +SKIP
    """
    directory = Path(directory)
    fixes = Counter()
    files = sorted(directory.rglob("*.json"))
    if not files:
        raise InputError(f"{directory}: found no JSON files; expected LabelMe's next to their images; check the path")
    annotations = read_each(lambda path: _read_file(directory, path, fixes), files, skip_bad, fixes)
    # An unreadable file may be that of any image, so the image with its name is not one without a file.
    taken = {annotation.image_path.resolve() for annotation in annotations}
    stems = {path.with_suffix("") for path in files}
    images = [path for path in sorted(directory.rglob("*")) if is_image_file(path)]
    rest = [path for path in images if path.resolve() not in taken and path.with_suffix("") not in stems]
    background = read_each(lambda path: _background(directory, path, fixes), rest, skip_bad, fixes)
    fixes["images without a JSON file (no objects)"] += len(background)
    found = sorted(annotations + background, key=lambda annotation: annotation.image_id)
    return to_dataset(f"labelme:{directory}", found, class_names, fixes)


def _background(directory, path, fixes):
    return annotate(str(path), name_in(path, directory), path, [], box_algebra.from_xyxy, fixes)


def _read_file(directory, path, fixes):
    content = load_json(path, "an annotation of LabelMe")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise InputError(f"{path}: found no list `shapes`; expected an annotation of LabelMe; fix or remove the file")
    image = find_image(str(path), path.parent, text_of(str(path), content.get("imagePath"), "imagePath"))
    stated = [whole_pixels(content.get(side)) for side in ("imageHeight", "imageWidth")]
    if None in stated:
        raise InputError(f"{path}: found an image size that is not a number; expected pixels; correct or remove it")
    counted = Counter()
    objects = [_object(f"{path}, shape {number}", shape, counted) for number, shape in enumerate(content["shapes"], 1)]
    objects = [item for item in objects if item is not None]
    annotation = annotate(
        str(path), name_in(image, directory), image, objects, box_algebra.from_xyxy, fixes, tuple(stated)
    )
    fixes.update(counted)
    return annotation


def _object(source, shape, counted):
    """The object of a shape; None if the shape has no area."""
    if not isinstance(shape, dict):
        raise InputError(f"{source}: found {str(shape)[:40]}; expected a shape; fix or remove it")
    kind = shape.get("shape_type") or "polygon"
    if kind in ("point", "points", "line", "linestrip"):
        counted[NO_AREA] += 1
        return None
    points = numbers_of(source, shape.get("points"), "points [x, y]")
    if len(points) % 2 or len(points) < 4:
        raise InputError(f"{source}: found {len(points)} numbers; expected two points or more; fix or remove the shape")
    corners = polygon_box(points)
    if kind == "circle":
        # The centre, and a point on the circle.
        corners = ellipse_box(points[0], points[1], *[math.dist(points[:2], points[2:4])] * 2)
    elif kind == "mask":
        corners = (corners[0], corners[1], corners[2] + 1, corners[3] + 1)
    counted[TO_BOXES] += kind != "rectangle"
    return AnnotatedObject(text_of(source, shape.get("label"), "label"), corners)
