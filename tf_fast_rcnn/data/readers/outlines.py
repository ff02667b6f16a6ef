"""The bounding boxes of outlines that annotation tools draw: polygons, rotated boxes, ellipses and masks.

All take and return coordinates in one unit, x before y, and return `(xmin, ymin, xmax, ymax)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Corners = tuple[float, float, float, float]


def polygon_box(numbers: Sequence[float]) -> Corners:
    """The bounding box of points, given as numbers `x1 y1 x2 y2 ...`.

    Example:
        >>> polygon_box([1, 9, 5, 2, 3, 4])
        (1, 2, 5, 9)
    """
    xs, ys = numbers[::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def rotated_box(box: Corners, degrees: float, about: tuple[float, float] | None = None) -> Corners:
    """The bounding box of a box that is rotated clockwise (as seen, with y downwards).

    Args:
        box: the box before its rotation.
        degrees: the angle.
        about: the point `(x, y)` that stays in its place; None for the centre.

    Example:
        >>> rotated_box((0, 0, 4, 2), 90, about=(0, 0))
        (-2.0, 0.0, 0.0, 4.0)
    """
    if not degrees:
        return box
    xmin, ymin, xmax, ymax = box
    x0, y0 = ((xmin + xmax) / 2, (ymin + ymax) / 2) if about is None else about
    cosine, sine = _cosine_and_sine(degrees)
    numbers = []
    for x, y in ((xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax)):
        numbers += [x0 + (x - x0) * cosine - (y - y0) * sine, y0 + (x - x0) * sine + (y - y0) * cosine]
    return polygon_box(numbers)


def ellipse_box(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Corners:
    """The bounding box of an ellipse with the centre `(x, y)` that is rotated about it.

    Example:
        >>> ellipse_box(10, 20, 5, 3)
        (5.0, 17.0, 15.0, 23.0)
    """
    cosine, sine = _cosine_and_sine(degrees)
    half_width = math.hypot(radius_x * cosine, radius_y * sine)
    half_height = math.hypot(radius_x * sine, radius_y * cosine)
    return x - half_width, y - half_height, x + half_width, y + half_height


def coco_outline_box(segmentation: Any) -> Corners | None:
    """The bounding box of COCO's `segmentation`: a list of polygons, or a run-length encoded mask; None if invalid.

    Example:
        >>> coco_outline_box([[1, 9, 5, 2, 3, 4], [0, 3, 1, 3, 1, 4]])
        (0, 2, 5, 9)
    """
    if isinstance(segmentation, Mapping):
        return _mask_box(segmentation)
    polygons = segmentation if isinstance(segmentation, list) else []
    if not polygons or not all(_is_polygon(polygon) for polygon in polygons):
        return None
    return polygon_box([number for polygon in polygons for number in polygon])


def _is_polygon(value):
    return (
        isinstance(value, list)
        and len(value) >= 6
        and len(value) % 2 == 0
        and all(isinstance(number, (int, float)) and math.isfinite(number) for number in value)
    )


def _mask_box(encoded):
    """The bounding box of a mask; its columns are read from the counts of runs, without decoding the mask."""
    from pycocotools import mask

    try:
        height, width = encoded["size"]
        if isinstance(encoded["counts"], list):
            encoded = mask.frPyObjects(dict(encoded), height, width)
        x, y, box_width, box_height = mask.toBbox(encoded).tolist()
    except Exception:  # pycocotools raises errors of many types for invalid masks.
        return None
    return x, y, x + box_width, y + box_height


def _cosine_and_sine(degrees):
    """Exact for multiples of 90 degrees."""
    turns = {0: (1.0, 0.0), 90: (0.0, 1.0), 180: (-1.0, 0.0), 270: (0.0, -1.0)}
    angle = math.radians(degrees)
    return turns.get(degrees % 360) or (math.cos(angle), math.sin(angle))
