"""The coordinates that proposal files have: order of the four numbers, unit, and number of the first pixel."""

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
    """Relative boxes are those in pixels of an image of one pixel."""
    return lambda rows, height, width: convert(rows, 1, 1)


# Name -> conversion of rows [P, 4] and the image's height and width to relative boxes. "0based" and "1based" are pixel
# corners that both belong to the box, the first pixel being 0 or 1; "edges" are continuous pixels: a side is 0 to its
# length; "relative" ones 0 to 1.
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
    """Rows `[P, 4]` of a file, for an image of `height` x `width` pixels, as relative boxes float32 `[P, 4]`.

    What is too large for float32 becomes infinite.

    Args:
        order: one of `ORDERS`.

    Example:
        >>> from_order([[1, 1, 480, 640]], 480, 640, "yxyx-1based")
        array([[0., 0., 1., 1.]], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(ORDERS[order](np.asarray(rows, np.float32), height, width), np.float32)


def check_order(order: str) -> None:
    """InputError for what is none of `ORDERS`."""
    if order not in ORDERS:
        raise InputError(f"proposals: found coordinate order {order!r}; expected one of {', '.join(ORDERS)}")
