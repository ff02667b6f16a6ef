"""Tiles: square parts of large images, enlarged for the network so that small objects cover enough of its maps.

The network sees every tile at the same scale: a tile's side becomes the shorter side of the network's input. An object
whose longer side is at most `Tiles.limit`, the width by which neighbouring tiles overlap, is completely inside at least
one of them: tiles are responsible for these objects, and the whole image, reduced as usual, for the others. (The same
idea as an image pyramid, section 5.2 of the paper, in which each RoI has one scale.)

`inference.views` detects on tiles, `data.prepared.tiles` cuts those that training sees.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.errors import check_setting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tf_fast_rcnn.data.records import ImageRecord


# A side that exceeds the limit by less, in pixels, equals it: coordinates are rounded.
LIMIT_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How images are cut into tiles.

    Attributes:
        size: side of a tile, in pixels of the image.
        overlap: width by which neighbouring tiles overlap at least, as a share of their side.
        whole_image: whether the whole image is seen too, for objects that are larger than the overlap.

    Raises:
        InputError: for a value out of range.

    Example:
        >>> Tiles(240, 0.25).limit
        60.0
    """

    size: int
    overlap: float = 0.2
    whole_image: bool = True

    def __post_init__(self) -> None:
        check_setting("tile", self.size, self.size >= 32, "a number of pixels from 32")
        check_setting(
            "tile_overlap", self.overlap, 0 < self.overlap <= 0.75, "a share of the tile's side, above 0 and up to 0.75"
        )

    @property
    def limit(self) -> float:
        """The longest side of the objects that tiles are responsible for, in pixels of the image."""
        return self.size * self.overlap


def tile_fields(tiles: Tiles | None) -> dict[str, Any]:
    """The fields of `DetectionSettings` and of `Recipe` for tiles; none for None."""
    if tiles is None:
        return {}
    return {"tile": tiles.size, "tile_overlap": tiles.overlap, "whole_image": tiles.whole_image}


def tile_windows(height: int, width: int, tiles: Tiles) -> np.ndarray:
    """The fewest tiles that cover an image with their overlap, evenly spaced: int64 `[T, 4]`, `[top, left, bottom,
    right]` in pixels of the image.

    Example:
        >>> tile_windows(240, 500, Tiles(240, 0.25))
        array([[  0,   0, 240, 240],
               [  0, 130, 240, 370],
               [  0, 260, 240, 500]])
    """
    (tops, rows), (lefts, columns) = (_starts(length, tiles) for length in (height, width))
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.concatenate([corners, corners + np.array([rows, columns])], axis=1)


def _starts(length, tiles):
    """The starts of tiles along an axis, and their side."""
    room = max(length - tiles.size, 0)
    count = 1 + math.ceil(room / (tiles.size * (1 - tiles.overlap)))
    return np.round(np.linspace(0, room, count)).astype(int), min(length, tiles.size)


def is_of_tiles(pixels: np.ndarray, tiles: Tiles) -> np.ndarray:
    """Whether tiles are responsible for boxes `[P, 4]` in pixels of the image, bool `[P]`."""
    if not tiles.whole_image:
        return np.ones(len(pixels), bool)
    return longer_sides(pixels) <= tiles.limit + LIMIT_TOLERANCE


def longer_sides(pixels: np.ndarray) -> np.ndarray:
    """The longer side of each box `[G, 4]`, in its unit: `[G]`."""
    return np.max(pixels[:, 2:] - pixels[:, :2], axis=1) if len(pixels) else np.zeros(0)


def object_sides(records: Iterable[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
    """The square roots of the areas and the longer sides of all objects but crowds, float64 `[G]` each, in pixels of
    the images."""
    roots, longer = [np.zeros(0)], [np.zeros(0)]
    for record in records:
        pixels = box_algebra.scale(record.boxes.astype(np.float64), record.height, record.width)[~record.crowd]
        roots.append(np.sqrt(box_algebra.area(pixels)))
        longer.append(longer_sides(pixels))
    return np.concatenate(roots), np.concatenate(longer)
