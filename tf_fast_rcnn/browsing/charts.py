"""The charts of the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn.browsing.findings import NETWORK_SIDE
from tf_fast_rcnn.data.proposals.recall import MIN_IOU
from tf_fast_rcnn.data.proposals.settings import DEFAULT_MIN_SIZE
from tf_fast_rcnn.visualization.plots import plot_histogram, plot_recall

if TYPE_CHECKING:
    from tf_fast_rcnn.browsing.survey import Survey

_MAX_COUNT_BINS = 40


class Chart(NamedTuple):
    """A picture of numbers, its path relative to the page, and what it shows in words, for those who do not see it."""

    path: str
    alt: str


def draw_charts(folder: Path, survey: Survey) -> list[Chart]:
    """Draws the charts of a `Survey` into `folder/charts`; returns a list of `Chart`."""
    charts = _recall_charts(survey.recall) if survey.recall is not None and len(survey.measures.class_ids) else {}
    charts |= _histograms(survey)
    drawn = []
    for name, (alt, plot, arguments) in charts.items():
        path = f"charts/{name}.svg"
        plot(**arguments, path=folder / path)
        drawn.append(Chart(path, alt))
    return drawn


def _recall_charts(curves):
    """Name to `(alternative text, plot, its arguments)`."""
    thresholds, by_iou, counts, by_count = curves
    loose, strict = f"{by_iou[0]:.2f} at an IoU of {thresholds[0]:.2f}", f"{by_iou[-1]:.2f} at {thresholds[-1]:.2f}"
    against_iou = {
        "curves": {"all proposals": (thresholds, by_iou)},
        "title": "Recall of the proposals against IoU",
        "xlabel": "IoU from which an object counts as found",
    }
    few, many = f"{by_count[0]:.2f} with {counts[0]} proposal", f"{by_count[-1]:.2f} with {counts[-1]}"
    against_count = {
        "curves": {f"IoU {MIN_IOU}": (counts, by_count)},
        "title": "Recall against the number of proposals",
        "xlabel": "proposals of each image, in their order",
        "log": True,
    }
    return {
        "recall-iou": (f"recall falls from {loose} to {strict}", plot_recall, against_iou),
        "recall-count": (f"recall grows from {few} to {many}", plot_recall, against_count),
    }


def _histograms(survey):
    """Name to `(alternative text, plot, its arguments)`."""
    measures, counts = survey.measures, survey.objects_per_image
    sizes = {
        "values": measures.sizes,
        "title": "Size of objects",
        "xlabel": "square root of the share of the image (0 to 1)",
        "bins": np.linspace(0, 1, 41),
    }
    sides = {
        "values": np.maximum(measures.shorter_sides, 1),
        "title": "Shorter side of objects in the network",
        "xlabel": f"pixels, where the image's shorter side has {NETWORK_SIDE}",
        "log": True,
        "limit": (DEFAULT_MIN_SIZE * NETWORK_SIDE, "two cells of the feature map"),
    }
    aspects = {
        "values": np.clip(measures.aspects, 0.01, 100),
        "title": "Aspect of objects",
        "xlabel": "width / height",
        "log": True,
    }
    objects = {
        "values": counts,
        "title": "Objects an image",
        "xlabel": "objects",
        "ylabel": "images",
        "bins": _count_bins(counts),
    }
    return {
        "sizes": (f"histogram of object sizes; {_quartiles(measures.sizes)}", plot_histogram, sizes),
        "sides": (f"histogram of shorter sides; {_quartiles(measures.shorter_sides)}", plot_histogram, sides),
        "aspects": (f"histogram of width over height; {_quartiles(measures.aspects)}", plot_histogram, aspects),
        "objects": (f"histogram of objects an image; {_quartiles(counts)}", plot_histogram, objects),
    }


def _quartiles(values):
    if not len(values):
        return "no values"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"median {middle:.3g}, half of them between {low:.3g} and {high:.3g}"


def _count_bins(counts):
    """Edges of bins that hold equally many whole numbers each."""
    last = max(counts, default=0)
    step = last // _MAX_COUNT_BINS + 1
    return np.arange(0, last + step + 1, step) - 0.5
