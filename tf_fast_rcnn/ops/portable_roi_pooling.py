"""RoI max pooling in stock TensorFlow ops, which convert to TF Lite and TensorFlow.js and compile with XLA.

The maximum of a bin is the maximum of at most four overlapping windows whose sides are powers of two. The maxima of all
these windows are computed once per feature map, in a two-dimensional sparse table.

In one dimension, these are the maxima over all windows of 1, 2 and 4 cells of a map of five cells:

    cells   3 1 4 1 5
    level 0 3 1 4 1 5      windows of 1 cell, 5 of them
    level 1 3 4 4 5        windows of 2 cells, 4 of them: maxima of two neighbours in level 0
    level 2 4 5            windows of 4 cells, 2 of them: maxima of two entries of level 1 that are 2 cells apart

A bin of 3 cells, 1 to 3, uses the longest windows that fit into it, which have 2 cells: the one that starts at the
start of the bin (cells 1 and 2, maximum 4) and the one that ends at its end (cells 2 and 3, maximum 4). They overlap,
which does not change the maximum: max(4, 4) = 4 = max(1, 4, 1). Two lookups are enough for a bin of any length, and
their level depends only on that length.

In two dimensions the table is built along the rows first, and then along the columns of the result: its entry (level i
of rows, level j of columns) is the maximum over 2^i x 2^j cells. A bin is the maximum of the windows at its four
corners:

    3 1 4                      a bin of 3 x 3 cells uses windows of 2 x 2 cells:
    1 5 9     2 x 2: 5 9       max(5, 9, 6, 9) = 9
    2 6 5            6 9

The levels of a side are concatenated along one axis (3 1 4 1 5 3 4 4 5 4 5 for the five cells above), so one index
identifies a window, and pooling takes four `tf.gather` calls and three maxima.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import tensorflow as tf

# Scaled coordinates are clamped to this many cells on either side of 0 (kMaxCells in the native op). This limits the
# rows and columns of a RoI, so that a table can list its bins for every possible side length.
_MAX_CELLS = 4096
_LONGEST_SIDE = 2 * _MAX_CELLS + 1

# The channels are processed in this many parts, unless the channels or the bins are known to be fewer than the numbers
# below.
_PARTS = 8
_CHANNELS_IN_PARTS = 64
_BINS_IN_PARTS = 4096


def portable_roi_pool(
    features: tf.Tensor, rois: tf.Tensor, output_size: tuple[int, int], spatial_scale: float
) -> tf.Tensor:
    """`roi_pool` in stock TensorFlow ops; arguments and result as there, already checked.

    Example:
        >>> portable_roi_pool(tf.zeros([1, 38, 63, 8]), tf.zeros([1, 300, 4]), (7, 7), 1 / 16).shape
        TensorShape([1, 300, 7, 7, 8])
    """
    images, height, width, channels = tf.unstack(tf.shape(features), num=4)
    # A wrong number of images fails here; later it might be broadcast silently.
    rois = tf.reshape(rois, [images, tf.shape(rois)[1], 4])
    # False only for NaN. Not x == x, which XLA and the graph optimisers may simplify to True.
    is_number = tf.abs(rois) >= 0
    cells = to_cells(tf.where(is_number, rois, 0.0), spatial_scale)
    y1, x1, y2, x2 = tf.unstack(cells, axis=-1)
    rows, columns = _bins(y1, y2, output_size[0], height), _bins(x1, x2, output_size[1], width)
    top, bottom, rows_empty = _window_pairs(rows[0], rows[1], height)
    left, right, columns_empty = _window_pairs(columns[0], columns[1], width)

    row_levels = _window_levels(features.shape[1], output_size[0])
    column_levels = _window_levels(features.shape[2], output_size[1])
    table_height, table_width = _windows(height, row_levels), _windows(width, column_levels)
    first_rows = tf.reshape(tf.range(images) * table_height, [-1, 1, 1])
    no_number = tf.reshape(tf.logical_not(tf.reduce_all(is_number, -1)), [images, -1, 1, 1])
    empty = tf.expand_dims(rows_empty, 3) | tf.expand_dims(columns_empty, 2) | no_number
    # The last row of the table, after all windows, holds zeros for empty bins.
    zeros = images * table_height * table_width

    def windows(row, column):
        index = tf.expand_dims((first_rows + row) * table_width, 3) + tf.expand_dims(column, 2)
        return tf.reshape(tf.where(empty, zeros, index), [-1])

    corners = [windows(row, column) for row in (top, bottom) for column in (left, right)]
    pooled = []
    for part in _channel_parts(features, bins=corners[0].shape[0]):
        # Without this, a graph would process several parts at once and need the memory of all of them.
        with tf.control_dependencies(pooled[-1:]):
            table = _window_maxima(_window_maxima(tf.identity(part), 1, row_levels), 2, column_levels)
            table = tf.reshape(table, [-1, tf.shape(part)[3]])
            table = tf.concat([table, tf.zeros_like(part[0, 0, :1])], axis=0)
            pooled.append(_maxima_of_windows(table, corners))
    return tf.reshape(tf.concat(pooled, axis=1), [images, tf.shape(rois)[1], *output_size, channels])


def _channel_parts(features, bins):
    """Splits the features along the channels to save memory: the window table and the four gathered arrays are each at
    least as large as the result.

    This is not a graph loop, since a loop would keep the intermediate results of every iteration for the gradient, and
    XLA can differentiate only loops of known length. `bins`: the number of bins of all RoIs; None if it is not known.
    """
    channels = features.shape[3] or tf.shape(features)[3]
    many = features.shape[3] is None or features.shape[3] >= _CHANNELS_IN_PARTS
    parts = _PARTS if many and (bins is None or bins >= _BINS_IN_PARTS) else 1
    edges = [channels * part // parts for part in range(parts + 1)]
    return [features[..., begin:end] for begin, end in itertools.pairwise(edges)]


def _maxima_of_windows(table, corners):
    """Maxima [N, C] of four rows of `table` for each bin; `corners`: four tensors int32 [N]."""
    first, *others = (tf.gather(table, corner) for corner in corners)
    for other in others:
        first = tf.maximum(first, other)
    return first


def to_cells(pixels: tf.Tensor, spatial_scale: float) -> tf.Tensor:
    """Converts float32 pixel coordinates to int32 cells of the feature map.

    Rounds as C's `round` does, halves away from zero, and clamps to 4096 cells on either side of 0. RoIs whose corners
    fall into the same cells are pooled to the same values.

    Example:
        >>> to_cells(tf.constant([8.0, 600.0, -8.0]), 1 / 16).numpy()
        array([ 1, 38, -1], dtype=int32)
    """
    scaled = tf.clip_by_value(pixels * np.float32(spatial_scale), -_MAX_CELLS, _MAX_CELLS)
    magnitude = tf.abs(scaled)
    whole = tf.floor(magnitude)
    # floor(x + 0.5) would be wrong just below one half, because the sum is rounded up to 1.
    rounded = whole + tf.cast(magnitude - whole >= 0.5, tf.float32)
    return tf.cast(tf.sign(scaled) * rounded, tf.int32)


def _bins(first_cell, last_cell, bins, cells):
    """The cell range [begin, end) of every bin along one side of the RoIs, int32 [B, R, bins], clipped to a map of
    `cells` cells."""
    length = tf.maximum(last_cell - first_cell + 1, 1)
    begins, ends = _bin_edges(bins)
    first_cell = tf.expand_dims(first_cell, -1)
    begin = tf.clip_by_value(first_cell + tf.gather(begins, length), 0, cells)
    end = tf.clip_by_value(first_cell + tf.gather(ends, length), 0, cells)
    return begin, end


@functools.cache
def _bin_edges(bins):
    """Tables int32 [_LONGEST_SIDE + 1, bins]: the begin and the end of each bin of a RoI side of h cells.

    They are computed with NumPy, because graph optimisers reorder (p + 1) * (h / bins), which changes the rounding.
    """
    step = np.arange(_LONGEST_SIDE + 1, dtype=np.float32)[:, None] / np.float32(bins)
    p = np.arange(bins, dtype=np.float32)
    return np.floor(p * step).astype(np.int32), np.ceil((p + 1) * step).astype(np.int32)


def _window_levels(cells, bins):
    """The number of window lengths 1, 2, 4, ... that bins may need on a map of `cells` cells (None if not known)."""
    begins, ends = _bin_edges(bins)
    longest_bin = int((ends - begins).max())
    return min(longest_bin, cells or longest_bin).bit_length()


def _windows(cells, levels):
    """The number of windows of all lengths that `_window_maxima` returns for one side; none is longer than the map."""
    return sum(tf.maximum(cells - 2**level + 1, 0) for level in range(levels))


def _window_maxima(features, axis, levels):
    """Maxima over all windows of 1, 2, 4, ... cells along `axis` (1 or 2), concatenated in order of length.

    A map of n cells has n - 2^i + 1 windows of 2^i cells, or none if the windows are longer than the map.
    """
    maxima = [features]
    for level in range(levels - 1):
        shorter, step = maxima[-1], 2**level
        if axis == 1:
            maxima.append(tf.maximum(shorter[:, :-step], shorter[:, step:]))
        else:
            maxima.append(tf.maximum(shorter[:, :, :-step], shorter[:, :, step:]))
    return tf.concat(maxima, axis)


def _window_pairs(begin, end, cells):
    """Indices of the two `_window_maxima` windows that together cover [begin, end), and whether that range is empty.

    For an empty bin, the indices are valid but arbitrary.
    """
    levels, lengths = _longest_windows()
    empty = end <= begin
    length = tf.maximum(end - begin, 1)
    begin = tf.minimum(begin, cells - 1)
    level, window = tf.gather(levels, length), tf.gather(lengths, length)
    # Level i comes after the windows of levels 0 to i - 1, whose number is the sum of cells - 2^k + 1.
    offset = level * (cells + 1) - (window - 1)
    return offset + begin, offset + begin + length - window, empty


@functools.cache
def _longest_windows():
    """Tables int32 [_LONGEST_SIDE + 1], indexed by bin length: the largest i with 2^i <= length, and 2^i."""
    levels = np.array([max(length, 1).bit_length() - 1 for length in range(_LONGEST_SIDE + 1)], np.int32)
    return levels, 2**levels
