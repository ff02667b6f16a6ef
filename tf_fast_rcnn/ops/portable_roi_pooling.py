"""RoI max pooling in stock TensorFlow ops, which convert to TF Lite and TensorFlow.js and compile with XLA.

Every bin is the maximum of at most four overlapping windows whose sides are powers of two, taken from a table of the
maxima of all such windows: a sparse table in two dimensions.

In one dimension, five cells give the maxima over all windows of 1, 2 and 4 cells:

    cells   3 1 4 1 5
    level 0 3 1 4 1 5      windows of 1 cell, 5 of them
    level 1 3 4 4 5        windows of 2 cells, 4 of them: the maximum of two neighbours of level 0
    level 2 4 5            windows of 4 cells, 2 of them: of two of level 1 that are 2 cells apart

A bin of 3 cells, 1 to 3, takes the longest windows that fit in it, of 2 cells: the one that begins where the bin
begins (cells 1 and 2, 4) and the one that ends where it ends (cells 2 and 3, 4). They overlap, which does not change a
maximum: max(4, 4) = 4, and so it is for max(1, 4, 1). Two lookups do for a bin of any length, and which level they are
of depends on the length alone.

In two dimensions the table is made along the rows, then along the columns of that: its entry (level i of rows, level j
of columns) is the maximum over 2^i x 2^j cells, and a bin is the maximum of the four windows in its corners:

    3 1 4                      a bin of 3 x 3 cells takes windows of 2 x 2 cells:
    1 5 9     2 x 2: 5 9       max(5, 9, 6, 9) = 9
    2 6 5            6 9

The levels of a side stand behind each other in one axis: for the five cells above 3 1 4 1 5 3 4 4 5 4 5, so that a
window is one index, and the pooled map is four `tf.gather` calls and three maxima.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import tensorflow as tf

# Scaled coordinates are clamped to this many cells on either side of 0 (kMaxCells of the native op), so that a RoI has
# at most this many rows or columns, and a table can list its bins.
_MAX_CELLS = 4096


_LONGEST_SIDE = 2 * _MAX_CELLS + 1


# The portable implementation works on the channels in this many parts, unless there are known to be few of them or of
# bins.
_PARTS = 8


_CHANNELS_IN_PARTS = 64


_BINS_IN_PARTS = 4096


def portable_roi_pool(
    features: tf.Tensor, rois: tf.Tensor, output_size: tuple[int, int], spatial_scale: float
) -> tf.Tensor:
    images, height, width, channels = tf.unstack(tf.shape(features), num=4)
    # A wrong number of images fails here; below it could be broadcast.
    rois = tf.reshape(rois, [images, tf.shape(rois)[1], 4])
    # False for NaN alone; XLA and the graph optimisers may take x == x for granted.
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
    # Behind all windows the table has a row of zeros, for empty bins.
    zeros = images * table_height * table_width

    def windows(row, column):
        index = tf.expand_dims((first_rows + row) * table_width, 3) + tf.expand_dims(column, 2)
        return tf.reshape(tf.where(empty, zeros, index), [-1])

    corners = [windows(row, column) for row in (top, bottom) for column in (left, right)]
    pooled = []
    for part in _channel_parts(features, bins=corners[0].shape[0]):
        # A graph would otherwise work on several parts at once.
        with tf.control_dependencies(pooled[-1:]):
            table = _window_maxima(_window_maxima(tf.identity(part), 1, row_levels), 2, column_levels)
            table = tf.reshape(table, [-1, tf.shape(part)[3]])
            table = tf.concat([table, tf.zeros_like(part[0, 0, :1])], axis=0)
            pooled.append(_maxima_of_windows(table, corners))
    return tf.reshape(tf.concat(pooled, axis=1), [images, tf.shape(rois)[1], *output_size, channels])


def _channel_parts(features, bins):
    """The features in parts of some channels each, since the table of windows and the four gathered arrays each have
    the size of the result or more. Not in a loop of the graph, which would keep what every turn needs for the gradient
    anyhow, and which XLA differentiates for known lengths only. `bins`: of all RoIs, None where that is not known.
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
    """The cells of the map, int32, in which float32 pixels fall: rounded as C's round does, halves away from zero, at
    most 4096 cells from 0. RoIs whose corners fall in the same cells are pooled to the same values."""
    scaled = tf.clip_by_value(pixels * np.float32(spatial_scale), -_MAX_CELLS, _MAX_CELLS)
    magnitude = tf.abs(scaled)
    whole = tf.floor(magnitude)
    # floor(x + 0.5) would be wrong just below a half, where the sum rounds up.
    rounded = whole + tf.cast(magnitude - whole >= 0.5, tf.float32)
    return tf.cast(tf.sign(scaled) * rounded, tf.int32)


def _bins(first_cell, last_cell, bins, cells):
    """The cells [begin, end) int32 [B, R, bins] of every bin of one side of the RoIs, cut to a map of `cells`."""
    length = tf.maximum(last_cell - first_cell + 1, 1)
    begins, ends = _bin_edges(bins)
    first_cell = tf.expand_dims(first_cell, -1)
    begin = tf.clip_by_value(first_cell + tf.gather(begins, length), 0, cells)
    end = tf.clip_by_value(first_cell + tf.gather(ends, length), 0, cells)
    return begin, end


@functools.cache
def _bin_edges(bins):
    """Tables int32 [_LONGEST_SIDE + 1, bins]: where each bin of a RoI side of h cells begins and ends.

    NumPy computes them, since graph optimisers re-associate (p + 1) * (h / bins) and then round elsewhere.
    """
    step = np.arange(_LONGEST_SIDE + 1, dtype=np.float32)[:, None] / np.float32(bins)
    p = np.arange(bins, dtype=np.float32)
    return np.floor(p * step).astype(np.int32), np.ceil((p + 1) * step).astype(np.int32)


def _window_levels(cells, bins):
    """How many window lengths 1, 2, 4, ... bins may need on a map of `cells` (None: not known)."""
    begins, ends = _bin_edges(bins)
    longest_bin = int((ends - begins).max())
    return min(longest_bin, cells or longest_bin).bit_length()


def _windows(cells, levels):
    """How many windows of all lengths `_window_maxima` gives of one side: 0 of those longer than the map."""
    return sum(tf.maximum(cells - 2**level + 1, 0) for level in range(levels))


def _window_maxima(features, axis, levels):
    """Maxima over all windows of 1, 2, 4, ... cells along `axis` (1 or 2), one length after the other.

    A map of n cells has n - 2^i + 1 windows of 2^i cells: none where the windows are longer than the map.
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
    """The two windows of _window_maxima that together cover [begin, end), and where that is empty.

    An empty bin gets the windows of some cell of the map.
    """
    levels, lengths = _longest_windows()
    empty = end <= begin
    length = tf.maximum(end - begin, 1)
    begin = tf.minimum(begin, cells - 1)
    level, window = tf.gather(levels, length), tf.gather(lengths, length)
    # Before level i stand the windows of levels 0 to i - 1: the sum of cells - 2^k + 1.
    offset = level * (cells + 1) - (window - 1)
    return offset + begin, offset + begin + length - window, empty


@functools.cache
def _longest_windows():
    """Tables int32 [_LONGEST_SIDE + 1] by bin length: the greatest i with 2^i <= length, and 2^i."""
    levels = np.array([max(length, 1).bit_length() - 1 for length in range(_LONGEST_SIDE + 1)], np.int32)
    return levels, 2**levels
