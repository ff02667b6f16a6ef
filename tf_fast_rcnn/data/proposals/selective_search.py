"""Selective search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013) by OpenCV."""

import cv2
import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.errors import InputError

MODES = ("fast", "quality")
# A larger image is searched at this size: time and memory grow faster than its pixels, and the network sees no more.
MAX_SIDE = 1000


def selective_search(image, mode="fast", max_proposals=2000, seed=0):
    """Object proposals of an image, the likelier whole objects first.

    OpenCV finds the regions; their order is made here, because OpenCV draws it from C's unseeded generator. As in the
    paper (section 4.2 there), a region's rank from large to small is multiplied by a random number, so that large
    regions tend to come first and no scale is lost where the list is cut.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        mode: "fast" or "quality" (about three times slower, twice as many).
        max_proposals: at most so many are returned; images with little structure give fewer, at least one.
        seed: of the random order.

    Returns:
        float32 `[P, 4]`, relative, without duplicates.

    Raises:
        InputError: for an unknown mode.

    Example:
        >>> selective_search(np.zeros((32, 48, 3), np.uint8))
        array([[0., 0., 1., 1.]], dtype=float32)
    """
    if mode not in MODES:
        raise InputError(f"selective search: found mode {mode!r}; expected one of {', '.join(MODES)}")
    shrunk = _shrink(image)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(shrunk, cv2.COLOR_RGB2BGR))
    (search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality)()
    # OpenCV's rectangles are x, y, width, height, as COCO's. Unique rows come sorted: a starting point for the order.
    rectangles = np.unique(np.asarray(search.process(), np.float32).reshape(-1, 4), axis=0)
    boxes = box_algebra.from_coco(rectangles, *shrunk.shape[:2])
    order = _random_order_large_first(box_algebra.area(boxes), seed)
    return boxes[order[:max_proposals]].astype(np.float32)


def _shrink(image):
    height, width = image.shape[:2]
    ratio = MAX_SIDE / max(height, width)
    if ratio >= 1:
        return image
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _random_order_large_first(areas, seed):
    ranks = np.empty(len(areas))
    ranks[np.argsort(-areas, kind="stable")] = np.arange(1, len(areas) + 1)
    return np.argsort(ranks * np.random.default_rng(seed).random(len(areas)), kind="stable")
