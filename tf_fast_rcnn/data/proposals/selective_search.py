"""Selective search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013).

By the compiled library (`native_search`), or by OpenCV (ximgproc module of opencv-contrib).
"""

from __future__ import annotations

import contextlib
import functools
import warnings

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals import native_search
from tf_fast_rcnn.errors import InputError, missing_package

MODES = ("fast", "quality")
IMPLEMENTATIONS = ("native", "opencv")
# Larger images are reduced to this size before the search: the network does not see more detail either.
MAX_SIDE = 1000


def selective_search(
    image: np.ndarray,
    mode: str = "fast",
    max_proposals: int = 2000,
    seed: int = 0,
    *,
    implementation: str = "auto",
    max_side: int = MAX_SIDE,
    min_size: float = 0.0,
    threads: int = 1,
) -> np.ndarray:
    """Computes object proposals by selective search, those more likely to be whole objects first.

    docs/selective_search.md describes each step. Large boxes tend to come first; in the native search, boxes nearly
    equal to an earlier one come last.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        mode: "fast" or "quality" (about three times as slow, with three times as many proposals).
        max_proposals: maximum number of proposals; images with little structure have fewer, but at least one unless
            `min_size` excludes all.
        seed: of the random order.
        implementation: "native" (the compiled library), "opencv", or "auto": native if it is built, else OpenCV's with
            a warning.
        max_side: images with a longer side above this, in pixels, are reduced to it before the search; 0: never.
        min_size: boxes with a shorter side below this are left out; in units of the image's shorter side. Native only.
        threads: number of threads; it does not change the result. Native only.

    Returns:
        float32 `[P, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image, without duplicates.

    Raises:
        InputError: for an invalid image, an unknown mode or implementation, or if "native" is not built.

    Example:
        >>> selective_search(np.zeros((32, 48, 3), np.uint8))
        array([[0., 0., 1., 1.]], dtype=float32)
    """
    if mode not in MODES:
        raise InputError(f"selective search: found mode {mode!r}; expected one of {', '.join(MODES)}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8" or not image.size:
        found = f"{image.dtype} {list(image.shape)}"
        raise InputError(f"selective search: found an image {found}; expected uint8 [H, W, 3] with at least one pixel")
    if implementation == "auto":
        implementation = available_implementation()
    if implementation == "native":
        return native_search.native_search(image, mode, max_proposals, seed, max_side, min_size, threads)
    if implementation == "opencv":
        return opencv_search(image, mode, max_proposals, seed, max_side)
    raise InputError(
        f"selective search: found implementation {implementation!r}; expected auto, {', '.join(IMPLEMENTATIONS)}"
    )


@functools.cache
def available_implementation() -> str:
    """ "native" if it is available, otherwise "opencv" with a warning (once) that gives the reason."""
    reason = native_search.why_unavailable()
    if reason is None:
        return "native"
    warnings.warn(
        f"using OpenCV's selective search, which is slower: found {reason}; install a C++17 compiler and reinstall "
        "tf-fast-rcnn to use the native one",
        RuntimeWarning,
        stacklevel=2,
    )
    return "opencv"


def use_one_thread() -> None:
    """Keeps OpenCV, where it is installed, to one thread of this process from now on."""
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)


def opencv_search(image: np.ndarray, mode: str, max_proposals: int, seed: int, max_side: int) -> np.ndarray:
    """Object proposals of an image; see `selective_search` for arguments and result.

    OpenCV finds the regions. They are ordered here, because OpenCV orders them with C's unseeded random generator. As
    in section 4.2 of the paper, a region's rank by decreasing size is multiplied by a random number, so that large
    regions tend to come first but all scales remain when the list is truncated.

    Raises:
        InputError: without OpenCV, the extra "opencv".
    """
    try:
        import cv2
    except ImportError as error:
        raise missing_package("OpenCV's selective search", error, "opencv") from None
    shrunk = _shrink(image, max_side)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(shrunk, cv2.COLOR_RGB2BGR))
    (search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality)()
    # OpenCV's rectangles are x, y, width, height, as in COCO. np.unique sorts them, which makes the order reproducible.
    rectangles = np.unique(np.asarray(search.process(), np.float32).reshape(-1, 4), axis=0)
    boxes = box_algebra.from_coco(rectangles, *shrunk.shape[:2])
    order = _random_order_large_first(box_algebra.area(boxes), seed)
    return boxes[order[:max_proposals]].astype(np.float32)


def _shrink(image, max_side):
    height, width = image.shape[:2]
    ratio = max_side / max(height, width)
    if ratio >= 1 or not max_side:
        return image
    import cv2

    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _random_order_large_first(areas, seed):
    ranks = np.empty(len(areas))
    ranks[np.argsort(-areas, kind="stable")] = np.arange(1, len(areas) + 1)
    return np.argsort(ranks * np.random.default_rng(seed).random(len(areas)), kind="stable")
