"""Object proposals computed in the exported graph, identical to those of `compute_proposals`.

Dense boxes only need stock TensorFlow ops; selective search needs a server with the compiled op.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals import ProposalSettings
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.request_checks import check_proposals
from tf_fast_rcnn.ops.native import native_ops


def check_graph_proposals(proposals: ProposalSettings) -> None:
    """Raises an InputError if a graph cannot compute these proposals."""
    if not isinstance(proposals, ProposalSettings):
        raise InputError(
            "proposals: found proposals from a file; expected ProposalSettings, because the graph has to compute them; "
            "export for clients that send proposals, or choose dense boxes or selective search"
        )
    if proposals.selective_search is None:
        return
    if proposals.tiles is not None:
        raise InputError(
            "proposals: found selective search in tiles; expected dense boxes, because a graph searches whole images "
            "only; export for clients that send proposals, or choose dense boxes"
        )
    if proposals.implementation != "native":
        raise InputError(
            f"proposals: found selective search with the implementation {proposals.implementation!r}; expected "
            "'native', because a graph runs no other; export for clients that send proposals, or choose 'native'"
        )
    native_ops()


def graph_proposals(
    image: Callable[[], tf.Tensor], size: tf.Tensor, proposals: ProposalSettings, max_proposals: int
) -> tf.Tensor:
    """Object proposals of an image: those of selective search, followed by the dense boxes.

    Args:
        image: function that returns the image, uint8 `[H, W, 3]`; called only if the proposals depend on its pixels.
        size: int32 `[2]`, its height and width in pixels.
        proposals: `ProposalSettings` accepted by `check_graph_proposals`.
        max_proposals: maximum number of dense boxes, which images with extreme aspect ratios exceed.

    Returns:
        float32 `[P, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.

    Raises:
        tf.errors.InvalidArgumentError: at run time, for an image with more dense boxes.
    """
    parts = []
    if proposals.selective_search is not None:
        parts.append(_searched(image(), proposals))
    if proposals.dense is not None:
        parts.append(_dense_boxes(size, proposals, max_proposals))
    return tf.concat(parts, axis=0)


def _searched(image, proposals):
    # The op takes the limit as float32. Rounding it up would drop boxes whose side equals the limit. Rounding it down
    # adds no boxes, because for no image size is a side that close to the limit.
    min_size = np.float32(proposals.min_size)
    if float(min_size) > proposals.min_size:
        min_size = np.nextafter(min_size, np.float32(0))
    boxes, counts = native_ops().tf_fast_rcnn_selective_search(
        image[None],
        mode=proposals.selective_search,
        max_proposals=proposals.max_selective_search,
        seed=proposals.seed,
        min_size=float(min_size),
    )
    return boxes[0, : counts[0]]


def _dense_boxes(size, proposals, max_boxes):
    """`data.proposals.dense_boxes` without boxes below the minimum size, with the same float64 operations."""
    shorter = tf.cast(tf.reduce_min(size), tf.float64)
    sides = tf.cast(size, tf.float64) / shorter
    dense, min_size = proposals.dense, proposals.min_size
    box_sides = np.array(dense.sizes, np.float64)
    if proposals.tiles is not None:
        box_sides = _in_views(box_sides, shorter, proposals.tiles)
        min_size *= tf.minimum(tf.constant(1.0, tf.float64), proposals.tiles.size / shorter)
    # The factor is 1, but only known at run time: TensorFlow would replace the division by a constant with a
    # multiplication by its reciprocal, which may round to a different number of boxes.
    step = dense.step * tf.reduce_min(sides)
    box_sides = tf.convert_to_tensor(box_sides, tf.float64)
    grids = [_grid(sides[axis], box_sides[:, axis], step) for axis in (0, 1)]
    number = tf.reduce_sum((grids[0][0] + 2.0) * (grids[1][0] + 2.0))
    with tf.control_dependencies([check_proposals(number, max_boxes)]):
        (down, down_exists), (across, across_exists) = (
            _intervals(sides[axis], box_sides[:, axis], *grids[axis]) for axis in (0, 1)
        )
    # Indices of the existing boxes: size, row, column.
    which = tf.where(down_exists[:, :, None] & across_exists[:, None, :])
    ymin, ymax = tf.unstack(tf.gather_nd(down, which[:, :2]), axis=1)
    xmin, xmax = tf.unstack(tf.gather_nd(across, which[:, 0::2]), axis=1)
    found = box_algebra.relative(tf.stack([ymin, xmin, ymax, xmax], axis=1), sides[0], sides[1])
    found = tf.cast(found, tf.float32)
    scaled = box_algebra.scale(found, *tf.unstack(tf.cast(sides, tf.float32)))
    return tf.boolean_mask(found, tf.reduce_min(scaled[:, 2:] - scaled[:, :2], axis=1) >= tf.cast(min_size, tf.float32))


def _in_views(box_sides, shorter, tiles):
    """`data.proposals.dense.dense_in_views`: sizes float64 `[S, 2]` in units of the image's shorter side."""
    if not tiles.whole_image:
        return box_sides * tiles.size / shorter
    in_tiles = box_sides[box_sides.max(axis=1) <= tiles.overlap] * tiles.size / shorter
    is_larger = box_sides.max(axis=1) * shorter > tiles.limit
    return tf.concat([in_tiles, tf.boolean_mask(box_sides, is_larger)], axis=0)


def _grid(length, side, step):
    """`data.proposals.dense._grid` for sides `[S]`: number, spacing and first position of boxes, float64 `[S]` each."""
    count = tf.maximum(tf.round((length - side) / (step * side)), 0.0) + 1.0
    spacing = tf.where(count > 1.0, (length - side) / tf.maximum(count - 1.0, 1.0), step * side)
    return count, spacing, tf.where(count > 1.0, tf.zeros_like(count), (length - side) / 2.0)


def _intervals(length, side, count, spacing, first):
    """Clipped starts and ends `[S, n, 2]` of boxes of sides `[S]` on their grids, and which exist, bool `[S, n]`."""
    # One additional box on each side is clipped at the border.
    number = tf.range(-1.0, tf.reduce_max(count) + 1.0, dtype=tf.float64)
    starts = first[:, None] + spacing[:, None] * number
    intervals = tf.minimum(tf.maximum(tf.stack([starts, starts + side[:, None]], axis=2), 0.0), length)
    return intervals, (number <= count[:, None]) & (intervals[..., 1] > intervals[..., 0])
