"""Selective search beside OpenCV's: time, recall and average best overlap on the same images, memory, growth."""

from __future__ import annotations

import concurrent.futures
import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.benchmarks.measure import median_seconds, peak_growth
from tf_fast_rcnn.data.proposals.recall import recall
from tf_fast_rcnn.data.proposals.selective_search import selective_search
from tf_fast_rcnn.errors import missing_package

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

CONTESTANTS = ("native", "opencv")
COUNTS = (500, 1000, 2000)
_BATCHES_OF_THREADS = 4


def measure_proposals(records: Sequence[ImageRecord], mode: str, threads: int = 2) -> dict[str, Any]:
    """Searches each image with one thread by turns, and batches of them natively with several threads.

    Args:
        records: sequence of `ImageRecord`.
        mode: "fast" or "quality".
        threads: of a batch.

    Returns:
        Dict: the mode; "images"; "boxes", objects; "threads"; by contestant "milliseconds" (median of images, one
        thread), "proposals" (mean number) and "quality" (by number of boxes: recall at IoU 0.5 and 0.7, and the mean
        over objects of the best box's IoU); "times_faster" (of the sums of times) and "times_faster_in_batches".
    """
    _opencv().setNumThreads(1)
    size = threads * _BATCHES_OF_THREADS
    seconds, found, batches = {name: [] for name in CONTESTANTS}, {name: [] for name in CONTESTANTS}, 0.0
    with (
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(records), desc=f"{mode} mode", unit="image", delay=2, leave=False) as bar,
    ):
        for start in range(0, len(records), size):
            images = [record.image() for record in records[start : start + size]]
            for image in images:
                for name in CONTESTANTS:
                    of_image, boxes = _timed(functools.partial(selective_search, image, mode, implementation=name))
                    seconds[name].append(of_image)
                    found[name].append(boxes)
                bar.update()
            search = functools.partial(selective_search, mode=mode, implementation="native")
            batches += _timed(lambda images=images, search=search: list(pool.map(search, images)))[0]
    return {
        "mode": mode,
        "images": len(records),
        "boxes": int(sum(np.sum(~record.crowd) for record in records)),
        "threads": threads,
        "milliseconds": {name: 1e3 * float(np.median(seconds[name])) for name in CONTESTANTS},
        "proposals": {name: float(np.mean([len(boxes) for boxes in found[name]])) for name in CONTESTANTS},
        "quality": {name: _quality(records, found[name]) for name in CONTESTANTS},
        "times_faster": sum(seconds["opencv"]) / sum(seconds["native"]),
        "times_faster_in_batches": sum(seconds["opencv"]) / batches,
    }


def measure_growth(image: np.ndarray, mode: str, sides: Sequence[int], rounds: int = 3) -> list[dict[str, float]]:
    """Time and memory of one image at growing sizes, with one thread, where nothing is searched smaller.

    To be called in a fresh process: what was freed would not count as growth.

    Args:
        image: uint8 `[H, W, 3]`.
        mode: "fast" or "quality".
        sides: longer sides in pixels, ascending.
        rounds: how often each is timed.

    Returns:
        List of dicts with "pixels", "milliseconds" and "bytes_per_pixel" (memory beside the image itself).
    """
    cv2, results = _opencv(), []
    for side in tqdm(sides, "sizes", unit="size", delay=2, leave=False):
        ratio = side / max(image.shape[:2])
        resized = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_CUBIC)
        search = functools.partial(selective_search, resized, mode, implementation="native", max_side=0)
        growth = peak_growth(search)[1]
        pixels = resized.shape[0] * resized.shape[1]
        milliseconds = 1e3 * median_seconds({"native": search}, rounds)["native"]
        results.append({"pixels": pixels, "milliseconds": milliseconds, "bytes_per_pixel": growth / pixels})
    return results


def _opencv():
    try:
        import cv2
    except ImportError as error:
        raise missing_package("benchmark proposals", error, "benchmark") from None
    return cv2


def _timed(function):
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def _quality(records, found):
    """By number of boxes: "recall_0.5", "recall_0.7" and "abo"."""
    quality = {}
    for count in COUNTS:
        best = [np.zeros(0)]
        for record, boxes in zip(records, found, strict=True):
            objects = record.boxes[~record.crowd]
            best.append(box_algebra.iou(boxes[:count], objects).max(axis=0, initial=0.0))
        best = np.concatenate(best)
        quality[count] = {
            "recall_0.5": recall(best, 0.5),
            "recall_0.7": recall(best, 0.7),
            "abo": float(best.mean()) if len(best) else float("nan"),
        }
    return quality
