"""Selective search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013)."""

from __future__ import annotations

import functools
import warnings

import numpy as np

from tf_fast_rcnn.data.proposals import native_search
from tf_fast_rcnn.data.proposals.opencv_search import opencv_search
from tf_fast_rcnn.errors import InputError

MODES = ("fast", "quality")
IMPLEMENTATIONS = ("native", "opencv")
# A larger image is searched at this size: the network sees no more of it.
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
    """Object proposals of an image, the likelier whole objects first.

    Each step is in docs/selective_search.md. Large boxes tend to come first; of the native search's boxes those that
    are nearly the same as an earlier one come last.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        mode: "fast" or "quality" (about three times slower, three times as many).
        max_proposals: at most so many are returned; images with little structure give fewer, at least one if
            `min_size` leaves any.
        seed: of the random order.
        implementation: "native" (the compiled library), "opencv", or "auto": native where it is built, else OpenCV's
            with a warning.
        max_side: a larger image is searched at the size at which its longer side is so many pixels; 0: at its own.
        min_size: boxes with a side shorter than this are left out; in units of the image's shorter side. Native only.
        threads: that share the work; they do not change the result. Native only.

    Returns:
        float32 `[P, 4]`, relative, without duplicates.

    Raises:
        InputError: for an image of another kind, an unknown mode or implementation, and where "native" is not built.

    Example:
        >>> selective_search(np.zeros((32, 48, 3), np.uint8))
        array([[0., 0., 1., 1.]], dtype=float32)
    """
    if mode not in MODES:
        raise InputError(f"selective search: found mode {mode!r}; expected one of {', '.join(MODES)}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8" or not image.size:
        found = f"{image.dtype} {list(image.shape)}"
        raise InputError(f"selective search: found an image {found}; expected uint8 [H, W, 3] of one pixel or more")
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
    """ "native", or "opencv" with a warning (once) that says why."""
    reason = native_search.why_unavailable()
    if reason is None:
        return "native"
    warnings.warn(
        f"Selective search is OpenCV's, which is slower: found {reason}; install tf-fast-rcnn again where a C++17 "
        "compiler is found",
        RuntimeWarning,
        stacklevel=2,
    )
    return "opencv"
