"""Box operations and all coordinate conversions.

Boxes are float32 `[ymin, xmin, ymax, xmax]`, relative to the image (0 to 1), with continuous edges: the whole image is
`[0, 0, 1, 1]`. RoIs inside the network have the same order, in pixels of the network's input. Conversions to and from
other formats are all in this module.

Every function accepts NumPy arrays or TensorFlow tensors and returns the same kind, so readers do not need TensorFlow
and the same code runs inside graphs.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# Functions return the type they are given. Nested lists of numbers are accepted too and return arrays.
Array = TypeVar("Array", np.ndarray, "tf.Tensor")

# Size deltas are limited before exp() so that an untrained network cannot predict infinite boxes: 1000 / 16 is the
# longest side of the paper's images divided by the size of a feature-map cell.
MAX_SIZE_DELTA = float(np.log(1000.0 / 16.0))


class BoxStatistics(NamedTuple):
    """Mean and standard deviation of the regression targets `(ty, tx, th, tw)` of each class: float32 `[K, 4]` each.

    They normalise the targets to zero mean and unit variance (section 2.3 of the paper).

    Attributes:
        mean, std: `K` rows, for the classes 1..K.

    Example:
        >>> statistics = BoxStatistics(np.zeros((3, 4), np.float32), np.full((3, 4), 0.1, np.float32))
        >>> model = fast_rcnn("vgg16", num_classes=3, box_statistics=statistics)            # doctest: +SKIP
    """

    mean: np.ndarray
    std: np.ndarray


def _library(array):
    """NumPy's functions for arrays, TensorFlow's for tensors, under common names."""
    if isinstance(array, (np.ndarray, np.generic, list, tuple)):
        return types.SimpleNamespace(
            stack=np.stack,
            concat=np.concatenate,
            exp=np.exp,
            log=np.log,
            minimum=np.minimum,
            maximum=np.maximum,
            divide_no_nan=lambda x, y: np.divide(x, y, out=np.zeros(x.shape, np.result_type(x, "f4")), where=y != 0),
        )
    import tensorflow as tf

    return types.SimpleNamespace(
        stack=tf.stack,
        concat=tf.concat,
        exp=tf.exp,
        log=tf.math.log,
        minimum=tf.minimum,
        maximum=tf.maximum,
        divide_no_nan=tf.math.divide_no_nan,
    )


def _float_array(boxes):
    """Converts sequences to float32 arrays; returns arrays and tensors unchanged."""
    return np.asarray(boxes, np.float32) if isinstance(boxes, (list, tuple)) else boxes


def _sides(boxes):
    return boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]


def area(boxes: Array) -> Array:
    """Areas of boxes `[..., 4]` (any unit); a reversed box has area 0.

    Example:
        >>> float(area(np.float32([0, 0, 0.5, 0.5])))
        0.25
    """
    boxes = _float_array(boxes)
    lib = _library(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    return lib.maximum(ymax - ymin, 0.0) * lib.maximum(xmax - xmin, 0.0)


def intersection(first: Array, second: Array) -> Array:
    """Areas of overlap `[N, M]` of boxes `[N, 4]` with boxes `[M, 4]`, both in the same unit."""
    first, second = _float_array(first), _float_array(second)
    lib = _library(first)
    top = lib.maximum(first[:, None, 0], second[None, :, 0])
    left = lib.maximum(first[:, None, 1], second[None, :, 1])
    bottom = lib.minimum(first[:, None, 2], second[None, :, 2])
    right = lib.minimum(first[:, None, 3], second[None, :, 3])
    return lib.maximum(bottom - top, 0.0) * lib.maximum(right - left, 0.0)


def iou(first: Array, second: Array) -> Array:
    """Intersection over union `[N, M]` of boxes `[N, 4]` with boxes `[M, 4]`; 0 if neither has an area.

    Scaling an axis scales all areas by the same factor, so relative and pixel boxes have the same IoU.

    Example:
        >>> iou([[0, 0, 1, 1]], [[0, 0, 0.5, 1], [0.5, 0, 1.5, 1]]).round(3)
        array([[0.5  , 0.333]], dtype=float32)
    """
    first, second = _float_array(first), _float_array(second)
    lib = _library(first)
    overlap = intersection(first, second)
    return lib.divide_no_nan(overlap, area(first)[:, None] + area(second)[None, :] - overlap)


def _centres_and_sizes(boxes):
    ymin, xmin, ymax, xmax = _sides(boxes)
    height, width = ymax - ymin, xmax - xmin
    return ymin + 0.5 * height, xmin + 0.5 * width, height, width


def encode(proposals: Array, ground_truth: Array) -> Array:
    """The paper's regression targets `(ty, tx, th, tw)`, which transform each proposal into its ground-truth box.

    ty = (Gy - Py) / Ph, tx = (Gx - Px) / Pw, th = log(Gh / Ph), tw = log(Gw / Pw), with centres y, x and sizes h, w
    (Fast R-CNN, section 2.3, after R-CNN, appendix C). The values do not depend on the unit of the boxes.

    Args:
        proposals: float `[..., 4]`, each side longer than 0.
        ground_truth: float `[..., 4]` in the same unit, each side longer than 0.

    Returns:
        float `[..., 4]`.

    Example:
        >>> encode([[0, 0, 2, 2]], [[0, 1, 2, 3]])
        array([[0. , 0.5, 0. , 0. ]], dtype=float32)
    """
    proposals, ground_truth = _float_array(proposals), _float_array(ground_truth)
    lib = _library(proposals)
    proposal_y, proposal_x, proposal_h, proposal_w = _centres_and_sizes(proposals)
    truth_y, truth_x, truth_h, truth_w = _centres_and_sizes(ground_truth)
    return lib.stack(
        [
            (truth_y - proposal_y) / proposal_h,
            (truth_x - proposal_x) / proposal_w,
            lib.log(truth_h / proposal_h),
            lib.log(truth_w / proposal_w),
        ],
        axis=-1,
    )


def decode(proposals: Array, deltas: Array) -> Array:
    """Boxes from proposals and regression values `(ty, tx, th, tw)`: the inverse of `encode`.

    Sizes are limited to 62.5 times the proposal's (see MAX_SIZE_DELTA). The shapes broadcast: proposals `[R, 1, 4]`
    and deltas `[R, K, 4]` result in boxes `[R, K, 4]`.

    Example:
        >>> decode([[0, 0, 2, 2]], np.float32([[0, 0.5, 0, 0]]))
        array([[0., 1., 2., 3.]], dtype=float32)
    """
    proposals, deltas = _float_array(proposals), _float_array(deltas)
    lib = _library(deltas)
    proposal_y, proposal_x, proposal_h, proposal_w = _centres_and_sizes(proposals)
    ty, tx, th, tw = _sides(deltas)
    half_h = 0.5 * proposal_h * lib.exp(lib.minimum(th, MAX_SIZE_DELTA))
    half_w = 0.5 * proposal_w * lib.exp(lib.minimum(tw, MAX_SIZE_DELTA))
    y, x = proposal_y + ty * proposal_h, proposal_x + tx * proposal_w
    return lib.stack([y - half_h, x - half_w, y + half_h, x + half_w], axis=-1)


def clip(boxes: Array, height: float | tf.Tensor = 1.0, width: float | tf.Tensor = 1.0) -> Array:
    """Boxes `[..., 4]` clipped to an image of `height` x `width` in the boxes' unit (default: relative boxes)."""
    boxes = _float_array(boxes)
    lib = _library(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)

    def cut(value, limit):
        return lib.minimum(lib.maximum(value, 0.0), limit)

    return lib.stack([cut(ymin, height), cut(xmin, width), cut(ymax, height), cut(xmax, width)], axis=-1)


def flip_horizontal(boxes: Array, width: float | tf.Tensor = 1.0) -> Array:
    """Boxes `[..., 4]` of the image flipped left to right; `width` is the image's width in the boxes' unit."""
    boxes = _float_array(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    return _library(boxes).stack([ymin, width - xmax, ymax, width - xmin], axis=-1)


def flip_vertical(boxes: Array, height: float | tf.Tensor = 1.0) -> Array:
    """Boxes `[..., 4]` of the image flipped top to bottom; `height` is the image's height in the boxes' unit."""
    boxes = _float_array(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    return _library(boxes).stack([height - ymax, xmin, height - ymin, xmax], axis=-1)


def scale(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts relative boxes `[..., 4]` to pixels of an image of `height` x `width`; the inverse is `relative`.

    Example:
        >>> scale([0, 0.5, 1, 1], 480, 640)
        array([  0., 320., 480., 640.], dtype=float32)
    """
    boxes = _float_array(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    return _library(boxes).stack([ymin * height, xmin * width, ymax * height, xmax * width], axis=-1)


def enlarge(boxes: Array, factor: float) -> Array:
    """Scales boxes `[..., 4]` (any unit) by `factor` around their centres; the result is not clipped.

    Example:
        >>> enlarge(np.float32([0.4, 0.4, 0.6, 0.8]), 2.0).round(2)
        array([0.3, 0.2, 0.7, 1. ], dtype=float32)
    """
    boxes = _float_array(boxes)
    margin = (boxes[..., 2:] - boxes[..., :2]) * (0.5 * (factor - 1.0))
    return _library(boxes).concat([boxes[..., :2] - margin, boxes[..., 2:] + margin], axis=-1)


def relative(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts boxes `[..., 4]` from pixels of an image of `height` x `width` to relative: the inverse of `scale`."""
    boxes = _float_array(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    return _library(boxes).stack([ymin / height, xmin / width, ymax / height, xmax / width], axis=-1)


def within(boxes: Array, window: Array) -> Array:
    """Converts boxes `[..., 4]` relative to the image to boxes relative to a window of it.

    The `window` `[4]` is a relative box with a positive area.

    Example:
        >>> within([0.5, 0.5, 0.75, 1.0], [0.5, 0, 1, 1])
        array([0. , 0.5, 0.5, 1. ], dtype=float32)
    """
    boxes = _float_array(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    top, left, bottom, right = window
    moved = _library(boxes).stack([ymin - top, xmin - left, ymax - top, xmax - left], axis=-1)
    return relative(moved, bottom - top, right - left)


def to_inclusive_corners(rois: Array) -> Array:
    """Converts RoIs `[..., 4]` in pixels from continuous edges to the inclusive corners that `roi_pool` expects.

    The original's RoIs are 0-based pixel corners: a full 600-pixel side is 0..599 there and 0..600 here.
    """
    rois = _float_array(rois)
    ymin, xmin, ymax, xmax = _sides(rois)
    return _library(rois).stack([ymin, xmin, ymax - 1.0, xmax - 1.0], axis=-1)


def from_stored(boxes: Array, orientation: int) -> Array:
    """Converts relative boxes from the stored image to the displayed one, which EXIF may rotate or flip.

    Args:
        boxes: float `[..., 4]`, drawn by a tool that ignores EXIF.
        orientation: the EXIF orientation (CIPA DC-008, tag 0x0112), 1 to 8; for example, 6 is displayed rotated a
            quarter turn clockwise.

    Example:
        >>> from_stored([0, 0, 0.25, 0.5], 6)
        array([0.  , 0.75, 0.5 , 1.  ], dtype=float32)
    """
    boxes = _float_array(boxes)
    ymin, xmin, ymax, xmax = _sides(boxes)
    if orientation >= 5:
        ymin, xmin, ymax, xmax = xmin, ymin, xmax, ymax
    if orientation in (2, 3, 6, 7):
        xmin, xmax = 1.0 - xmax, 1.0 - xmin
    if orientation in (3, 4, 7, 8):
        ymin, ymax = 1.0 - ymax, 1.0 - ymin
    return _library(boxes).stack([ymin, xmin, ymax, xmax], axis=-1)


def from_voc(corners: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts Pascal VOC's `[xmin, ymin, xmax, ymax]`, 1-based pixels with both corners included, to relative boxes.

    The top left pixel is (1, 1) (VOC 2007 devkit, "Annotation guidelines"), so `[1, 1, 1, 1]` covers one pixel.

    Example:
        >>> from_voc([1, 1, 640, 480], 480, 640)
        array([0., 0., 1., 1.], dtype=float32)
    """
    corners = _float_array(corners)
    xmin, ymin, xmax, ymax = _sides(corners)
    edges = _library(corners).stack([ymin - 1.0, xmin - 1.0, ymax, xmax], axis=-1)
    return relative(edges, height, width)


def to_voc(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts relative boxes to Pascal VOC's corners (float, not rounded): the inverse of `from_voc`."""
    pixels = scale(boxes, height, width)
    ymin, xmin, ymax, xmax = _sides(pixels)
    return _library(pixels).stack([xmin + 1.0, ymin + 1.0, xmax, ymax], axis=-1)


def from_coco(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts COCO's `[x, y, width, height]` in pixels (0-based, continuous) to relative boxes.

    Example:
        >>> from_coco([320, 0, 320, 480], 480, 640)
        array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    boxes = _float_array(boxes)
    left, top, box_width, box_height = _sides(boxes)
    edges = _library(boxes).stack([top, left, top + box_height, left + box_width], axis=-1)
    return relative(edges, height, width)


def to_coco(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts relative boxes to COCO's `[x, y, width, height]` in pixels: the inverse of `from_coco`."""
    pixels = scale(boxes, height, width)
    ymin, xmin, ymax, xmax = _sides(pixels)
    return _library(pixels).stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=-1)


def from_xyxy(edges: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts pixel edges `[xmin, ymin, xmax, ymax]` (0-based, continuous, as in CSV files) to relative boxes.

    Example:
        >>> from_xyxy([320, 0, 640, 480], 480, 640)
        array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    edges = _float_array(edges)
    xmin, ymin, xmax, ymax = _sides(edges)
    return relative(_library(edges).stack([ymin, xmin, ymax, xmax], axis=-1), height, width)


def to_xyxy(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts relative boxes to pixel edges `[xmin, ymin, xmax, ymax]`: the inverse of `from_xyxy`."""
    pixels = scale(boxes, height, width)
    ymin, xmin, ymax, xmax = _sides(pixels)
    return _library(pixels).stack([xmin, ymin, xmax, ymax], axis=-1)


def from_yolo(boxes: Array) -> Array:
    """Converts YOLO's `[x, y, width, height]`, centre and size relative to the image, to relative boxes.

    Example:
        >>> from_yolo([0.75, 0.5, 0.5, 1])
        array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    boxes = _float_array(boxes)
    x, y, box_width, box_height = _sides(boxes)
    half_h, half_w = 0.5 * box_height, 0.5 * box_width
    return _library(boxes).stack([y - half_h, x - half_w, y + half_h, x + half_w], axis=-1)


def to_yolo(boxes: Array) -> Array:
    """Converts relative boxes to YOLO's `[x, y, width, height]`: the inverse of `from_yolo`."""
    boxes = _float_array(boxes)
    y, x, box_height, box_width = _centres_and_sizes(boxes)
    return _library(boxes).stack([x, y, box_width, box_height], axis=-1)


def from_tfds_voc(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Corrects the relative boxes of TensorFlow Datasets' `voc`.

    That builder divides VOC's 1-based corners by the image's size without subtracting 1, so each box lacks its first
    row and column (tensorflow_datasets/object_detection/voc.py, version 5.0.0).

    Example:
        >>> from_tfds_voc([1 / 480, 1 / 640, 1, 1], 480, 640)
        array([0., 0., 1., 1.], dtype=float32)
    """
    return from_voc(to_xyxy(boxes, height, width), height, width)


def from_paper(windows: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts the paper's RoIs `(r, c, h, w)` to relative boxes.

    They are the top left corner, height and width in pixels (section 2.1).

    Example:
        >>> from_paper([0, 320, 480, 320], 480, 640)
        array([0. , 0.5, 1. , 1. ], dtype=float32)
    """
    windows = _float_array(windows)
    row, column, box_height, box_width = _sides(windows)
    edges = _library(windows).stack([row, column, row + box_height, column + box_width], axis=-1)
    return relative(edges, height, width)


def to_paper(boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor) -> Array:
    """Converts relative boxes to the paper's `(r, c, h, w)` in pixels: the inverse of `from_paper`."""
    pixels = scale(boxes, height, width)
    ymin, xmin, ymax, xmax = _sides(pixels)
    return _library(pixels).stack([ymin, xmin, ymax - ymin, xmax - xmin], axis=-1)


def from_corners(
    corners: Array, height: float | tf.Tensor, width: float | tf.Tensor, order: str = "xyxy", base: int = 0
) -> Array:
    """Converts the pixel corners of proposal files, both included, to relative boxes.

    Args:
        corners: numeric `[..., 4]`.
        height, width: the image's size in pixels.
        order: "xyxy" for x1 y1 x2 y2, "yxyx" for y1 x1 y2 x2.
        base: coordinate of the first pixel: 0 (.mat files of the original demo) or 1 (.mat files of a VOC image set).

    Example:
        >>> from_corners([0, 0, 639, 479], 480, 640)
        array([0., 0., 1., 1.], dtype=float32)
    """
    corners = np.asarray(corners, np.float32)
    swapped = corners[..., [1, 0, 3, 2]] if order == "yxyx" else corners
    return from_voc(swapped - base + 1, height, width)


def to_corners(
    boxes: Array, height: float | tf.Tensor, width: float | tf.Tensor, order: str = "xyxy", base: int = 0
) -> Array:
    """Converts relative boxes to pixel corners, both included: the inverse of `from_corners`."""
    corners = to_voc(np.asarray(boxes, np.float32), height, width) + base - 1
    return corners[..., [1, 0, 3, 2]] if order == "yxyx" else corners
