"""Dense object proposals: boxes of a few sizes on regular grids, with sizes fitted to the training boxes.

For many similar objects (cells, digits, products), they have a higher recall than selective search.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals.recall import ENOUGH_RECALL, MIN_IOU
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.data.tiles import Tiles

# Each grid continues by this many positions beyond every border, clipped to the image, for objects cut by the border.
_POSITIONS_BEYOND_BORDER = 1
# Steps to choose from: with smaller ones, too few sizes fit into the budget; with larger ones, objects between two
# positions do not reach an IoU of 0.5.
_STEPS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
_CANDIDATE_SIZES = 80
# Numbers of boxes in an image to choose from: the smallest with which the training boxes have enough recall. Detection
# takes time in proportion.
_BUDGETS = (3000, 6000, 12_000, 24_000)
_MAX_BOXES = 1_000_000
# A sample of the training boxes is enough for the fit, which then takes only seconds for a large data set.
_MAX_FITTED_BOXES = 4000


@dataclasses.dataclass(frozen=True)
class DenseBoxes:
    """The sizes of dense boxes and the distance between neighbours.

    Attributes:
        sizes: (height, width) of each box, in units of the image's shorter side.
        step: distance between neighbouring boxes as a fraction of their height (vertically) and width (horizontally).

    Example:
        >>> settings = ProposalSettings(dense=DenseBoxes(sizes=((0.2, 0.2), (0.2, 0.4)), step=0.3))     # doctest: +SKIP
    """

    sizes: tuple[tuple[float, float], ...]
    step: float

    def __post_init__(self) -> None:
        sizes = tuple((float(height), float(width)) for height, width in self.sizes)
        object.__setattr__(self, "sizes", sizes)
        if not 0 < self.step <= 1 or any(not side > 0 for size in sizes for side in size):
            raise InputError(
                f"dense boxes: found step {self.step}, sizes {sizes}; expected 0 < step <= 1 and sizes > 0"
            )


def dense_grid(
    scales: Iterable[float] = (0.12, 0.2, 0.35, 0.55, 0.85),
    aspect_ratios: Iterable[float] = (0.5, 1.0, 2.0),
    stride: float = 0.4,
) -> DenseBoxes:
    """Dense boxes of every combination of scale and aspect ratio; by default about 2,800 boxes in a 4:3 image.

    Args:
        scales: square roots of the boxes' areas, in units of the image's shorter side.
        aspect_ratios: width / height.
        stride: distance between neighbouring boxes as a fraction of their height (vertically) and width (horizontally).

    Returns:
        `DenseBoxes`.

    Raises:
        InputError: for numbers that are not above 0, a stride above 1, or more than a million boxes in a square image.

    Example:
        >>> dense_grid(scales=[0.5], aspect_ratios=[1, 4], stride=0.5).sizes
        ((0.5, 0.5), (0.25, 1.0))
    """
    numbers = (*scales, *aspect_ratios, stride)
    if not scales or not aspect_ratios or not all(0 < value < math.inf for value in numbers):
        raise InputError(
            f"dense boxes: found scales {scales}, aspect ratios {aspect_ratios} and stride {stride}; expected numbers "
            "above 0"
        )
    sizes = tuple((scale * ratio**-0.5, scale * ratio**0.5) for scale in scales for ratio in aspect_ratios)
    dense = DenseBoxes(sizes, stride)
    # Computed from the sides, because creating the boxes to count them could exhaust memory.
    count = sum(math.prod(1 + max(0, 1 - side) / (stride * side) for side in size) for size in sizes)
    if count > _MAX_BOXES:
        raise InputError(
            f"dense boxes: found about {count:.0f} boxes in an image; expected {_MAX_BOXES} at most; "
            "increase the scales or the stride"
        )
    return dense


# For data sets without boxes.
DEFAULT_DENSE_BOXES = dense_grid()


def dense_boxes(height: float, width: float, dense: DenseBoxes) -> np.ndarray:
    """All dense boxes of an image, clipped to it: float32 `[P, 4]`, relative.

    Along each axis, the boxes are evenly spaced from border to border, plus one box on each side that is cut by the
    border.

    Args:
        height, width: the image's size, in any unit.
        dense: `DenseBoxes`.

    Example:
        >>> dense_boxes(480, 640, DenseBoxes(sizes=((1.0, 1.0),), step=0.5)).round(2)[:2]
        array([[0.  , 0.  , 0.5 , 0.38],
               [0.  , 0.  , 0.5 , 0.75]], dtype=float32)
    """
    shorter = min(height, width)
    rows, columns = height / shorter, width / shorter
    grids = []
    for box_height, box_width in dense.sizes:
        down = _intervals(rows, box_height, dense.step)
        across = _intervals(columns, box_width, dense.step)
        grid = np.empty((len(down), len(across), 4))
        grid[..., 0::2] = down[:, None]
        grid[..., 1::2] = across[None]
        grids.append(grid.reshape(-1, 4))
    boxes = np.concatenate(grids) if grids else np.zeros((0, 4))
    return box_algebra.relative(boxes, rows, columns).astype(np.float32)


def dense_in_views(height: float, width: float, dense: DenseBoxes, tiles: Tiles) -> DenseBoxes:
    """The dense boxes of an image that is seen in tiles and as a whole, each size on one grid over the whole image.

    Args:
        height, width: the image's size in pixels.
        dense: `DenseBoxes` with sizes in units of the shorter side of a view: a tile or the whole image.
        tiles: `Tiles`.

    Returns:
        `DenseBoxes` in units of the image's shorter side: the sizes that fit into the tiles' overlap, at the scale of
        tiles, and, if the whole image is seen, the sizes that are larger than the overlap in it.
    """
    shorter = min(height, width)
    in_tiles = [size for size in dense.sizes if max(size) <= tiles.overlap or not tiles.whole_image]
    in_tiles = [(rows * tiles.size / shorter, columns * tiles.size / shorter) for rows, columns in in_tiles]
    in_whole = [size for size in dense.sizes if tiles.whole_image and max(size) * shorter > tiles.limit]
    return DenseBoxes((*in_tiles, *in_whole), dense.step)


def fit_dense_boxes(dataset: Iterable[ImageRecord], max_boxes: int | None = None, min_size: float = 0.0) -> DenseBoxes:
    """Finds the sizes and step that cover a data set's boxes best with a given number of boxes in a typical image.

    For each step, sizes are chosen greedily from clusters of the training boxes' sizes, each time the one with the
    largest gain per box. The objective is a softened recall at IoU 0.5 plus half the mean best IoU, averaged over
    classes (so that rare ones count equally, as in mAP). The result is deterministic; the fit takes about a second.

    Args:
        dataset: `DetectionDataset`; its boxes are the training boxes. If there are none: `DEFAULT_DENSE_BOXES`.
        max_boxes: maximum number of boxes in an image of the median height and width. None: 3000, or as many more as
            the recall of the training boxes at IoU 0.5, averaged over classes, needs to reach 0.9; at most 24,000.
        min_size: lower bound of the sides, in units of the image's shorter side.

    Returns:
        `DenseBoxes`.

    Raises:
        InputError: if not even one size fits into the number of boxes: the objects are too small for their images.

    Example:
        >>> fit_dense_boxes(load_dataset("voc:cells@train")).step                              # doctest: +SKIP
        0.4
    """
    boxes, images, labels = _training_boxes(dataset)
    if not len(boxes):
        return DEFAULT_DENSE_BOXES
    weights = _class_balanced(labels)
    sizes = np.maximum(_cluster_sizes(boxes[:, 2:] - boxes[:, :2], weights), min_size)
    typical = np.median(images, axis=0)
    grids = []
    for step in _STEPS:
        overlaps = np.stack([_best_iou(boxes, images, size, step) for size in sizes], axis=1)
        grids.append(_Grids(step, overlaps, np.array([_count(typical, size, step) for size in sizes])))
    best, budgets = None, _BUDGETS if max_boxes is None else (max_boxes,)
    for budget in budgets:
        best = _best_within(budget, grids, weights)
        if best is not None and best.recall >= ENOUGH_RECALL:
            break
    if best is None:
        name = getattr(dataset, "name", "the data set")
        raise InputError(
            f"dense boxes: found no size of {name} that fits into {budgets[-1]} boxes; expected at least "
            f"{min(each.costs.min() for each in grids)} for objects that small; cut the images into smaller ones, or "
            "use selective search (--proposals selective-search)"
        )
    return DenseBoxes(tuple(map(tuple, sizes[best.chosen])), best.step)


class _Grids(NamedTuple):
    """The grids of all candidate sizes M with one step: the best IoU of each training box `[N, M]`, and the number of
    boxes of each `[M]`."""

    step: float
    overlaps: np.ndarray
    costs: np.ndarray


class _Fit(NamedTuple):
    """Chosen sizes and step, the objective's value, and the class-balanced recall at IoU 0.5."""

    chosen: list
    step: float
    score: float
    recall: float


def _best_within(budget, grids, weights):
    """The best `_Fit` of at most `budget` boxes; None if not even one size fits."""
    best = None
    for step, overlaps, costs in grids:
        chosen, score = _greedy_cover(weights[:, None] * _quality(overlaps), costs, budget)
        if chosen and (best is None or score > best.score):
            found = overlaps[:, chosen].max(axis=1) >= MIN_IOU
            best = _Fit(chosen, step, score, float(weights[found].sum()))
    return best


def _grid(length, side, step):
    """Number of positions inside the image along an axis, their spacing, and the start of the first; broadcasts.

    A side longer than the axis has a single position, centred.
    """
    count = np.maximum(np.round((length - side) / (step * side)), 0) + 1
    spacing = np.where(count > 1, (length - side) / np.maximum(count - 1, 1), step * side)
    first = np.where(count > 1, 0.0, (length - side) / 2)
    return count, spacing, first


def _intervals(length, side, step):
    """Starts and ends `[n, 2]` along an axis, clipped to it."""
    count, spacing, first = _grid(length, side, step)
    starts = first + spacing * np.arange(-_POSITIONS_BEYOND_BORDER, count + _POSITIONS_BEYOND_BORDER)
    intervals = np.clip(np.stack([starts, starts + side], axis=1), 0, length)
    return intervals[intervals[:, 1] > intervals[:, 0]]


def _count(image, size, step):
    """Number of boxes of one size in an image of `(height, width)`, in units of its shorter side."""
    return len(_intervals(image[0], size[0], step)) * len(_intervals(image[1], size[1], step))


def _training_boxes(dataset):
    """Boxes [N, 4] and their images' sizes [N, 2], both in units of the image's shorter side, and class ids [N]."""
    boxes, images, labels = [np.zeros((0, 4))], [np.zeros((0, 2))], [np.zeros(0, np.int32)]
    for record in dataset:
        image = np.array([record.height, record.width]) / min(record.height, record.width)
        boxes.append(box_algebra.scale(record.boxes.astype(np.float64), *image))
        images.append(np.tile(image, (len(record.boxes), 1)))
        labels.append(record.class_ids)
    boxes, images, labels = map(np.concatenate, (boxes, images, labels))
    if len(boxes) > _MAX_FITTED_BOXES:
        sample = np.random.default_rng(0).choice(len(boxes), _MAX_FITTED_BOXES, replace=False)
        boxes, images, labels = boxes[sample], images[sample], labels[sample]
    return boxes, images, labels


def _class_balanced(labels):
    weights = 1.0 / np.bincount(labels)[labels]
    return weights / weights.sum()


def _cluster_sizes(sizes, weights):
    """At most `_CANDIDATE_SIZES` typical sizes [M, 2]: k-means of (log height, log width), initialised far apart."""
    logs = np.log(sizes)
    if len(logs) <= _CANDIDATE_SIZES:
        return np.unique(sizes, axis=0)
    centres = [logs[np.argmax(weights)]]
    distance = np.full(len(logs), np.inf)
    for _ in range(_CANDIDATE_SIZES - 1):
        distance = np.minimum(distance, np.abs(logs - centres[-1]).sum(axis=1))
        centres.append(logs[np.argmax(distance * np.sqrt(weights))])
    centres = np.array(centres)
    for _ in range(15):
        nearest = np.abs(logs[:, None] - centres[None]).sum(axis=-1).argmin(axis=1)
        for index in np.unique(nearest):
            members = nearest == index
            centres[index] = np.average(logs[members], axis=0, weights=weights[members])
    return np.unique(np.exp(centres), axis=0)


def _quality(best_iou):
    # A ramp around IoU 0.5: a hard threshold would choose sizes that only just reach it on the training boxes
    # (cross-validated on blood cells, recall of the smallest class is 0.976 with the ramp and 0.966 without).
    return np.clip((best_iou - 0.4) / 0.2, 0, 1) + 0.5 * best_iou


def _best_iou(boxes, images, size, step):
    """Best IoU [N] of each box with the grid of one size; only the nearest positions need to be compared."""
    down = _nearest_intervals(boxes[:, 0], boxes[:, 2], images[:, 0], size[0], step)
    across = _nearest_intervals(boxes[:, 1], boxes[:, 3], images[:, 1], size[1], step)
    areas = box_algebra.area(boxes)
    best = np.zeros(len(boxes))
    for top, bottom in down:
        overlap_y = np.maximum(np.minimum(bottom, boxes[:, 2]) - np.maximum(top, boxes[:, 0]), 0)
        for left, right in across:
            overlap_x = np.maximum(np.minimum(right, boxes[:, 3]) - np.maximum(left, boxes[:, 1]), 0)
            overlap = overlap_y * overlap_x
            best = np.maximum(best, overlap / (areas + (bottom - top) * (right - left) - overlap))
    return best


def _nearest_intervals(low, high, length, side, step):
    """The three grid intervals around each interval `low`..`high`, as pairs of [N] starts and ends."""
    count, spacing, first = _grid(length, side, step)
    nearest = np.round(((low + high - side) / 2 - first) / spacing)
    beyond = _POSITIONS_BEYOND_BORDER
    starts = [first + spacing * np.clip(nearest + k, -beyond, count - 1 + beyond) for k in (-1, 0, 1)]
    return [(np.clip(start, 0, length), np.clip(start + side, 0, length)) for start in starts]


def _greedy_cover(gains, costs, budget):
    """Indices of the chosen columns of `gains` [N, M], and the sum over rows of the largest chosen value."""
    covered, chosen = np.zeros(len(gains)), []
    while True:
        gain = np.maximum(gains - covered[:, None], 0).sum(axis=0)
        rate = np.where(costs <= budget, gain / costs, 0)
        index = int(rate.argmax())
        if rate[index] <= 1e-9:
            return chosen, covered.sum()
        chosen.append(index)
        budget -= costs[index]
        covered = np.maximum(covered, gains[:, index])
