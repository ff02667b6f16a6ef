"""Parts of images: a box and what is around it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tf_fast_rcnn import boxes as box_algebra

CROP_SIDE = 240


# A finding's picture shows so many times the extent of its objects around them, and at least this part of the image.
_SURROUNDINGS = 3.0


_LEAST_WINDOW = 0.15


def window_around(boxes: np.ndarray) -> np.ndarray:
    """The part of the image around some boxes, a relative box."""
    if not len(boxes):
        return np.array([0, 0, 1, 1], np.float32)
    first, last = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = np.maximum(_SURROUNDINGS * (last - first), _LEAST_WINDOW) / 2
    half = np.maximum(half, half.max() / 2)  # a long box alone would give a strip
    centre = (first + last) / 2
    return box_algebra.clip(np.concatenate([centre - half, centre + half]))


def cut_out(picture: Image.Image, window: np.ndarray) -> Image.Image:
    """A part of a PIL image, a relative box, with `CROP_SIDE` as its longer side."""
    top, left, bottom, right = box_algebra.scale(window, picture.height, picture.width).tolist()
    zoom = CROP_SIDE / max(bottom - top, right - left)
    size = (max(1, round((right - left) * zoom)), max(1, round((bottom - top) * zoom)))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
