"""Object proposals computed in the exported graph, equal to those of `compute_proposals`.

Dense boxes need TensorFlow's own ops alone; selective search needs a server that has the compiled op.
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
    """InputError where the graph cannot compute the proposals of these settings."""
    if not isinstance(proposals, ProposalSettings):
        raise InputError(
            "proposals: found those of a file; expected settings that compute them; export for clients that send "
            "proposals, or give dense boxes or selective search"
        )
    if proposals.selective_search is None:
        return
    if proposals.implementation != "native":
        raise InputError(
            f"proposals: found {proposals.implementation}'s selective search, which a graph cannot run; expected the "
            "native one; export for clients that send proposals, or choose selective search for the graph"
        )
    native_ops()


def graph_proposals(
    image: Callable[[], tf.Tensor], size: tf.Tensor, proposals: ProposalSettings, max_proposals: int
) -> tf.Tensor:
    """An image's object proposals: selective search's first, then the dense boxes.

    Args:
        image: function that gives the image, uint8 `[H, W, 3]`; called where its pixels are looked at.
        size: int32 `[2]`, its height and width.
        proposals: `ProposalSettings` that `check_graph_proposals` passed.
        max_proposals: more dense boxes than that, which very long images have, are refused.

    Returns:
        float32 `[P, 4]`, relative.

    Raises:
        tf.errors.InvalidArgumentError: when run on an image of more dense boxes.
    """
    parts = []
    if proposals.selective_search is not None:
        parts.append(_searched(image(), proposals))
    if proposals.dense is not None:
        parts.append(_dense_boxes(size, proposals.dense, proposals.min_size, max_proposals))
    return tf.concat(parts, axis=0)


def _searched(image, proposals):
    # The op has the limit as float32. Below the exact one no side is so near to it, whatever the image's size, while
    # above it one that equals the limit would be lost.
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


def _dense_boxes(size, dense, min_size, max_boxes):
    """`data.proposals.dense_boxes` without those below `min_size`, step by step in the same float64."""
    shorter = tf.cast(tf.reduce_min(size), tf.float64)
    sides = tf.cast(size, tf.float64) / shorter
    box_sides = np.array(dense.sizes, np.float64)
    # 1, but only when it runs: TensorFlow replaces a division by a constant with a multiplication by its reciprocal,
    # which may round to another number of boxes.
    step = dense.step * tf.reduce_min(sides)
    grids = [_grid(sides[axis], box_sides[:, axis], step) for axis in (0, 1)]
    number = tf.reduce_sum((grids[0][0] + 2.0) * (grids[1][0] + 2.0))
    with tf.control_dependencies([check_proposals(number, max_boxes)]):
        (down, down_exists), (across, across_exists) = (
            _intervals(sides[axis], box_sides[:, axis], *grids[axis]) for axis in (0, 1)
        )
    # Where each box that exists stands: its size, then its row, then its column.
    which = tf.where(down_exists[:, :, None] & across_exists[:, None, :])
    ymin, ymax = tf.unstack(tf.gather_nd(down, which[:, :2]), axis=1)
    xmin, xmax = tf.unstack(tf.gather_nd(across, which[:, 0::2]), axis=1)
    found = box_algebra.relative(tf.stack([ymin, xmin, ymax, xmax], axis=1), sides[0], sides[1])
    found = tf.cast(found, tf.float32)
    scaled = box_algebra.scale(found, *tf.unstack(tf.cast(sides, tf.float32)))
    return tf.boolean_mask(found, tf.reduce_min(scaled[:, 2:] - scaled[:, :2], axis=1) >= np.float32(min_size))


def _grid(length, side, step):
    """`data.proposals.dense._grid` of sides `[S]`: number, distance and first position, float64 `[S]` each."""
    count = tf.maximum(tf.round((length - side) / (step * side)), 0.0) + 1.0
    spacing = tf.where(count > 1.0, (length - side) / tf.maximum(count - 1.0, 1.0), step * side)
    return count, spacing, tf.where(count > 1.0, tf.zeros_like(count), (length - side) / 2.0)


def _intervals(length, side, count, spacing, first):
    """Starts and ends `[S, n, 2]` of boxes of sides `[S]` on their grids, clipped, and which exist, bool `[S, n]`."""
    # One more box on each side is cut by the border.
    number = tf.range(-1.0, tf.reduce_max(count) + 1.0, dtype=tf.float64)
    starts = first[:, None] + spacing[:, None] * number
    intervals = tf.minimum(tf.maximum(tf.stack([starts, starts + side[:, None]], axis=2), 0.0), length)
    return intervals, (number <= count[:, None]) & (intervals[..., 1] > intervals[..., 0])
