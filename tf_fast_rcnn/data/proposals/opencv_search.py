"""Selective search by OpenCV (ximgproc module of opencv-contrib)."""

from __future__ import annotations

import contextlib

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.errors import missing_package


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
