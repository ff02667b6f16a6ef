"""Equal and nearly equal images, found in one pass over a data set."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
from PIL import Image

# Bits of 64 in which the hashes of nearly equal images may differ. Cut into one band more, two such hashes share one.
_MAX_DISTANCE = 3
_BANDS = 16 * np.arange(_MAX_DISTANCE + 1, dtype=np.uint64)
_BAND_MASK = np.uint64(0xFFFF)
# Mean difference of small grey copies, in grey levels: images saved again differ by less than 2, neighbours of a film
# of little motion too; a hash alone would take all plain grounds for one.
_MAX_DIFFERENCE = 3.0
_COPY_SIDE = 16


class DuplicateImages:
    """Groups of images with equal pixels, and of images that nearly look the same.

    Each image is compared with the first of every group that it may belong to, so that time and memory hardly grow
    with the number of images: 300 bytes each. The candidates are found by a difference hash (N. Krawetz, "Kind of Like
    That", 2013): 64 signs of brightness falling from left to right.

    Example:
        >>> found = DuplicateImages()
        >>> for index in range(2):
        ...     found.add(index, np.zeros((480, 640, 3), np.uint8))
        >>> found.identical(), found.similar()
        ([(0, 1)], [])
    """

    def __init__(self) -> None:
        self._by_pixels = defaultdict(list)  # digest of the pixels: images
        self._groups = []  # of images with different pixels
        self._firsts = []  # hash and small copy of each group's first image
        self._by_band = defaultdict(list)  # (band, its bits): groups

    def add(self, index: int, image: np.ndarray) -> None:
        """Takes the image `index`: uint8 `[H, W, 3]`."""
        same = self._by_pixels[_pixel_digest(image)]
        same.append(index)
        if len(same) > 1:
            return
        code, copy = _signature(image)
        bands = list(enumerate((code >> _BANDS & _BAND_MASK).tolist()))
        group = self._group_like(code, copy, bands)
        if group is not None:
            self._groups[group].append(index)
            return
        for band in bands:
            self._by_band[band].append(len(self._groups))
        self._groups.append([index])
        self._firsts.append((code, copy))

    def identical(self) -> list[tuple[int, ...]]:
        """Groups of images with the same pixels: a list of tuples of indices."""
        return [tuple(group) for group in self._by_pixels.values() if len(group) > 1]

    def similar(self) -> list[tuple[int, ...]]:
        """Groups of images that nearly look the same, one of each set of identical ones: a list of tuples."""
        return [tuple(group) for group in self._groups if len(group) > 1]

    def _group_like(self, code, copy, bands):
        candidates = sorted({group for band in bands for group in self._by_band[band]})
        for group in candidates:
            other_code, other_copy = self._firsts[group]
            if _distance(code, other_code) <= _MAX_DISTANCE and _difference(copy, other_copy) <= _MAX_DIFFERENCE:
                return group
        return None


def _pixel_digest(image):
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return digest.digest()


def _signature(image):
    """The difference hash as uint64, and a small grey copy, uint8 `[16, 16]`."""
    grey = Image.fromarray(image).convert("L")
    columns = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    falling = columns[:, 1:] < columns[:, :-1]
    code = np.frombuffer(np.packbits(falling).tobytes(), np.uint64)[0]
    return code, np.asarray(grey.resize((_COPY_SIDE, _COPY_SIDE), Image.Resampling.BOX))


def _distance(code, other):
    return int(code ^ other).bit_count()


def _difference(copy, other):
    return np.abs(copy.astype(np.int16) - other).mean()
