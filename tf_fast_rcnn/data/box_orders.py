"""Coordinate formats of files: order of the four numbers, unit, and coordinate of the first pixel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


def _corners(order, base):
    return functools.partial(box_algebra.from_corners, order=order, base=base)


def _of_unit_image(convert):
    """Relative coordinates are pixel coordinates in an image of 1 x 1 pixel."""
    return lambda rows, height, width: convert(rows, 1, 1)


def _of_percent(convert):
    return lambda rows, height, width: convert(rows, 100, 100)


def _of_centre(rows, height, width):
    """`x y width height` in pixels, where x and y are the centre of the box."""
    return box_algebra.relative(box_algebra.scale(box_algebra.from_yolo(rows), 1, 1), height, width)


def _of_any_corner(convert):
    """Boxes that begin at any of their four corners: reversed sides are exchanged."""

    def turned(rows, height, width):
        boxes = convert(rows, height, width)
        first, last = boxes[..., :2], boxes[..., 2:]
        return np.concatenate([np.minimum(first, last), np.maximum(first, last)], axis=-1)

    return turned


# Name -> function of rows [P, 4] and the image's height and width that returns relative boxes. "0based" and "1based"
# are pixel corners, both included, where the first pixel is 0 or 1; "edges" are continuous pixel coordinates from 0 to
# the image's size; "relative" coordinates are 0 to 1.
ORDERS: dict[str, Callable[..., np.ndarray]] = {
    "yxyx-relative": _of_unit_image(box_algebra.relative),
    "xyxy-relative": _of_unit_image(box_algebra.from_xyxy),
    "xywh-relative": _of_unit_image(box_algebra.from_coco),
    "xyxy-0based": _corners("xyxy", 0),
    "yxyx-0based": _corners("yxyx", 0),
    "xyxy-1based": _corners("xyxy", 1),
    "yxyx-1based": _corners("yxyx", 1),
    "xyxy-edges": box_algebra.from_xyxy,
    "yxyx-edges": box_algebra.relative,
    "xywh-edges": box_algebra.from_coco,
    "yxhw-edges": box_algebra.from_paper,
}

# Those that annotation files may have too: percentages, boxes given by their centre, and boxes that begin at the corner
# where drawing began, so that widths and heights may be negative.
ANNOTATION_ORDERS: dict[str, Callable[..., np.ndarray]] = {
    **ORDERS,
    "xyxy-percent": _of_percent(box_algebra.from_xyxy),
    "xywh-percent": _of_percent(box_algebra.from_coco),
    "cxcywh-relative": lambda rows, height, width: box_algebra.from_yolo(rows),
    "cxcywh-edges": _of_centre,
    "xyxy-anycorner": _of_any_corner(box_algebra.from_xyxy),
    "xywh-anycorner": _of_any_corner(box_algebra.from_coco),
}


def from_order(rows: npt.ArrayLike, height: float, width: float, order: str) -> np.ndarray:
    """Converts a file's rows to relative boxes, float32 `[P, 4]`.

    Numbers too large for float32 become infinite.

    Args:
        rows: numbers `[P, 4]`.
        height, width: the image's size in pixels.
        order: one of `ORDERS`.

    Example:
        >>> from_order([[1, 1, 480, 640]], 480, 640, "yxyx-1based")
        array([[0., 0., 1., 1.]], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(ORDERS[order](np.asarray(rows, np.float32), height, width), np.float32)


def check_order(order: str) -> None:
    """Raises an InputError if `order` is not one of `ORDERS`."""
    if order not in ORDERS:
        raise InputError(f"proposals: found coordinate order {order!r}; expected one of {', '.join(ORDERS)}")


def annotation_order(order: str) -> Callable[..., np.ndarray]:
    """The function of rows `[G, 4]` (float64), height and width that returns relative boxes, for annotations.

    It is a new object at each call, by which `annotate` knows that the user chose the order: it is not checked.

    Args:
        order: one of `ANNOTATION_ORDERS`.

    Raises:
        InputError: for another order.

    Example:
        >>> annotation_order("xywh-percent")(np.float64([[25, 50, 50, 50]]), 480, 640)
        array([[0.5 , 0.25, 1.  , 0.75]])
    """
    if order not in ANNOTATION_ORDERS:
        raise InputError(
            f"boxes: found coordinate order {order!r}; expected one of {', '.join(ANNOTATION_ORDERS)}; change "
            "--boxes-order (boxes_order)"
        )
    return functools.partial(ANNOTATION_ORDERS[order])
