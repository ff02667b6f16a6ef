"""Coordinate formats of proposal files: order of the four numbers, unit, and coordinate of the first pixel."""

from __future__ import annotations

import functools
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


# Name -> function of rows [P, 4] and the image's height and width that returns relative boxes. "0based" and "1based"
# are pixel corners, both included, where the first pixel is 0 or 1; "edges" are continuous pixel coordinates from 0 to
# the image's size; "relative" coordinates are 0 to 1.
ORDERS = {
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
