"""Bounding boxes of outlines, against boxes of many points of the outline."""

import math

import numpy as np
import pytest
from pycocotools import mask

from tf_fast_rcnn.data.readers.outlines import coco_outline_box, ellipse_box, polygon_box, rotated_box


def test_polygon():
    assert polygon_box([3.5, 9, 5, 2, 3, 4]) == (3, 2, 5, 9)


@pytest.mark.parametrize("degrees", [-30, 0, 10, 45, 90, 200, 270, 370])
def test_rotation_is_clockwise_as_seen(degrees):
    """A point to the right of the centre moves downwards, where y grows."""
    angle = math.radians(degrees)
    corners = [complex(x, y) * complex(math.cos(angle), math.sin(angle)) for x in (-4, 4) for y in (-1, 1)]
    xs, ys = [10 + corner.real for corner in corners], [20 + corner.imag for corner in corners]
    assert rotated_box((6, 19, 14, 21), degrees) == pytest.approx((min(xs), min(ys), max(xs), max(ys)))
    turns = np.linspace(0, 2 * math.pi, 10_001)
    points = (4 * np.cos(turns) + 1j * np.sin(turns)) * complex(math.cos(angle), math.sin(angle))
    expected = (10 + points.real.min(), 20 + points.imag.min(), 10 + points.real.max(), 20 + points.imag.max())
    assert ellipse_box(10, 20, 4, 1, degrees) == pytest.approx(expected, abs=1e-6)


def test_quarter_turns_are_exact():
    assert rotated_box((1, 2, 3, 4), 360) == (1, 2, 3, 4)
    assert rotated_box((30, 10, 40, 14), 90, about=(30, 10)) == (26, 10, 30, 20)


@pytest.mark.parametrize("compressed", [False, True])
def test_coco_masks(compressed):
    pixels = np.zeros((40, 60), np.uint8, order="F")
    pixels[10:21, 6:30] = 1
    encoded = mask.encode(pixels)
    if not compressed:
        runs = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0, append=2))
        encoded = {"size": [40, 60], "counts": np.diff(runs, prepend=0).tolist()}
    else:
        encoded["counts"] = encoded["counts"].decode()
    assert coco_outline_box(encoded) == (6, 10, 30, 21)


@pytest.mark.parametrize(
    "value",
    [None, [], [[]], [[1, 2]], [[1, 2, 3, 4, 5]], [["a"] * 6], {}, {"size": [4, 4]}, {"size": 1, "counts": []}, 5],
)
def test_what_is_not_an_outline(value):
    assert coco_outline_box(value) is None
