"""Crops of images around boxes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tf_fast_rcnn import boxes as box_algebra

CROP_SIDE = 240

# A crop is this many times as long as the extent of its boxes, and at least this share of the image.
_SURROUNDINGS = 3.0
_LEAST_WINDOW = 0.15


def window_around(boxes: np.ndarray) -> np.ndarray:
    """The window to show around boxes `[N, 4]`: a relative box, float32 `[4]`; the whole image if N is 0."""
    if not len(boxes):
        return np.array([0, 0, 1, 1], np.float32)
    first, last = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = np.maximum(_SURROUNDINGS * (last - first), _LEAST_WINDOW) / 2
    half = np.maximum(half, half.max() / 2)  # otherwise a long thin box would result in a strip
    centre = (first + last) / 2
    return box_algebra.clip(np.concatenate([centre - half, centre + half]))


def cut_out(picture: Image.Image, window: np.ndarray) -> Image.Image:
    """Crops a PIL image to a relative box and resizes the crop so that its longer side is `CROP_SIDE` pixels."""
    top, left, bottom, right = box_algebra.scale(window, picture.height, picture.width).tolist()
    zoom = CROP_SIDE / max(bottom - top, right - left)
    size = (max(1, round((right - left) * zoom)), max(1, round((bottom - top) * zoom)))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
