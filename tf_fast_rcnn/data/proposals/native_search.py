"""Bindings of the compiled selective search in `custom_ops/cc/selective_search`, which does not need TensorFlow.

setup.py compiles the library into the package. It is loaded with ctypes, which releases the GIL during calls.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Collection
from ctypes import c_double, c_int, c_int64, c_uint64
from pathlib import Path

import numpy as np

from tf_fast_rcnn.errors import InputError

COLOR_SPACES = ("hsv", "lab", "gray", "hue", "red-green")
SIMILARITIES = ("color", "texture", "size", "fill")
# Segments with fewer pixels are merged with a neighbour.
MIN_SEGMENT = 90

_LIBRARY = Path(__file__).parents[2] / "_selective_search.so"
_VERSION = 1
_REINSTALL = "install a C++17 compiler and reinstall tf-fast-rcnn"
_IMAGE = np.ctypeslib.ndpointer(np.uint8, ndim=3, flags="C")
_ARGUMENTS = {
    "selective_search": [c_int, c_int64, c_uint64, c_int64, c_double, c_int, np.ctypeslib.ndpointer(np.float32)],
    "segment": [c_int, c_int, c_int, np.ctypeslib.ndpointer(np.int32)],
    "group": [c_int] * 7 + [np.ctypeslib.ndpointer(np.int32)],
}


def why_unavailable() -> str | None:
    """The reason why the compiled search is not available, or None if it is. Loads the library at the first call."""
    return _load()[1]


def native_search(
    image: np.ndarray, mode: str, max_proposals: int, seed: int, max_side: int, min_size: float, threads: int
) -> np.ndarray:
    """Object proposals of an image; see `selective_search` for arguments and result.

    Raises:
        InputError: if the library is not built.
    """
    boxes = np.empty((max_proposals, 4), np.float32)
    arguments = (mode == "quality", max_proposals, seed % 2**64, max_side, min_size, threads)
    return boxes[: _call("selective_search", image, *arguments, boxes)]


def segment(image: np.ndarray, color_space: str, k: float, min_segment: int = MIN_SEGMENT) -> np.ndarray:
    """Computes the initial segments of a hierarchy (Felzenszwalb and Huttenlocher, IJCV 2004, sigma 0.8).

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        color_space: one of `COLOR_SPACES`.
        k: the scale; larger values result in larger segments.
        min_segment: smaller segments, in pixels, are merged with a neighbour.

    Returns:
        int32 `[H, W]`: the segment number of each pixel, from 0 in the order of the segments' first pixels.

    Example:
        >>> segment(np.zeros((2, 3, 3), np.uint8), "lab", 150)
        array([[0, 0, 0],
               [0, 0, 0]], dtype=int32)
    """
    labels = np.empty(image.shape[:2], np.int32)
    _call("segment", image, COLOR_SPACES.index(color_space), k, min_segment, labels)
    return labels


def group(
    image: np.ndarray,
    color_space: str,
    k: float,
    similarities: Collection[str] = SIMILARITIES,
    min_segment: int = MIN_SEGMENT,
) -> np.ndarray:
    """Computes one hierarchy of regions: the segments, then the merged regions in order, up to the whole image.

    Args:
        image, color_space, k, min_segment: as for `segment`.
        similarities: which of `SIMILARITIES` to add up.

    Returns:
        int32 `[R, 7]`: the box in pixels (ymin, xmin, ymax, xmax), the level (1 for segments, otherwise one more than
        the higher of the two merged regions), and the numbers of these two, the smaller first (-1 for segments).
    """
    segments = int(segment(image, color_space, k, min_segment).max()) + 1
    regions = np.empty((2 * segments, 7), np.int32)
    chosen = [name in similarities for name in SIMILARITIES]
    return regions[: _call("group", image, COLOR_SPACES.index(color_space), k, min_segment, *chosen, regions)]


def _call(name, image, *arguments):
    functions, reason = _load()
    if functions is None:
        raise InputError(f"selective search: found {reason}; expected the compiled library; {_REINSTALL}")
    image = np.ascontiguousarray(image)
    number = functions[name](image, *image.shape[:2], *arguments)
    if number < 0:
        raise MemoryError(f"selective search of an image of {image.shape[0]}x{image.shape[1]}")
    return number


@functools.cache
def _load():
    """(functions by name, None) or (None, reason)."""
    if not _LIBRARY.exists():
        return None, f"no {_LIBRARY.name} in {_LIBRARY.parent}"
    try:
        library = ctypes.CDLL(str(_LIBRARY))
        version = library.tf_fast_rcnn_selective_search_version()
    except (OSError, AttributeError) as error:
        return None, f"a library that cannot be loaded ({error})"
    if version != _VERSION:
        return None, f"version {version} of {_LIBRARY}, but this package needs version {_VERSION}"
    return {name: _function(library, name, types) for name, types in _ARGUMENTS.items()}, None


def _function(library, name, types):
    function = library[f"tf_fast_rcnn_{name}"]
    function.argtypes, function.restype = [_IMAGE, c_int64, c_int64, *types], c_int64
    return function
