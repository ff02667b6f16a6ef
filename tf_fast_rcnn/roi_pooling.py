"""RoI max pooling (Fast R-CNN, section 2.1): each RoI of a feature map becomes a small map of fixed size.

There are two implementations of one rule, equal in every value: `native`, the compiled op of custom_ops/, and
`portable`, stock TensorFlow ops, which converts to TF Lite and TF.js and compiles with XLA.
"""

import functools
import itertools
import math

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.native import native_ops, native_ops_available, why_no_cuda

IMPLEMENTATIONS = ("auto", "native", "portable")

# Scaled coordinates are clamped to this many cells on either side of 0 (kMaxCells of the native op), so that a RoI has
# at most this many rows or columns, and a table can list its bins.
_MAX_CELLS = 4096
_LONGEST_SIDE = 2 * _MAX_CELLS + 1

# The portable implementation works on the channels in this many parts, unless there are known to be few of them or of
# bins.
_PARTS = 8
_CHANNELS_IN_PARTS = 64
_BINS_IN_PARTS = 4096


def roi_pool(features, rois, output_size=(7, 7), spatial_scale=1 / 16, implementation="auto", training=False):
    """RoI max pooling: the maxima over output_size bins of every RoI, for each channel.

    The rule is the original's (Caffe). Corners are scaled and rounded to cells, halves away from zero; both corner
    cells belong to the RoI, which has at least one cell. Of h rows, bin p of P has the rows floor(p * h / P) to
    ceil((p + 1) * h / P) (in float32, h / P first), so that neighbouring bins may share a row. What lies outside the
    map is cut off; a bin with no cell left gives 0. Coordinates may be any number: beyond 4096 cells they count as
    4096, and a RoI with a NaN gives zeros. What a bin gives that has a NaN feature is not specified.

    Args:
        features: [B, H, W, C], float32, float64, bfloat16 or float16; at least one row and column.
        rois: float32 [B, R, 4], `[y1, x1, y2, x2]` in pixels of the network's input, where the pixel (y2, x2) belongs
            to the RoI: the whole of a 600-pixel side is 0..599. R is the same for all images, and may be 0.
        output_size: (P, Q), rows and columns of bins.
        spatial_scale: cells of the features a pixel: 1/16 where the network's strides multiply to 16, which takes
            pixel 600 to cell 37.5, rounded to 38.
        implementation: "native", "portable", or "auto": native where the library loads and can run on the GPUs that
            TensorFlow sees. Only the portable one runs under XLA.
        training: whether the native forward pass keeps where each maximum was. It gives the same values either way;
            with False a gradient has to find the maxima again, with True the pass takes longer and keeps an int32 for
            each value.

    Returns:
        [B, R, P, Q, C] of the features' type. Differentiable with respect to the features: a bin's gradient goes to the
        cell of its maximum (equation 4), among equals to the first in row-major order (native) or to one of them
        (portable).

    Raises:
        tf.errors.InvalidArgumentError: shapes or sizes that do not fit.
        InputError: "native" where the library cannot be loaded; says why.

    Example:
        >>> features = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
        >>> roi_pool(features, [[[0, 0, 48, 48]]], output_size=(2, 2), spatial_scale=1 / 16)[0, 0, ..., 0].numpy()
        array([[ 5.,  7.],
               [13., 15.]], dtype=float32)
    """
    features, rois = tf.convert_to_tensor(features), tf.convert_to_tensor(rois, tf.float32)
    output_size, spatial_scale = tuple(map(int, output_size)), float(spatial_scale)
    _check(features, rois, output_size, spatial_scale)
    if choose_implementation(implementation) == "native":
        return _native_roi_pool(features, rois, output_size, spatial_scale, training)
    return _portable_roi_pool(features, rois, output_size, spatial_scale)


def choose_implementation(implementation):
    """ "native" or "portable" for one of IMPLEMENTATIONS; InputError for another word."""
    if implementation not in IMPLEMENTATIONS:
        raise InputError(f"implementation: found {implementation!r}; expected one of {', '.join(IMPLEMENTATIONS)}")
    if implementation == "auto":
        return "native" if native_ops_available() and why_no_cuda() is None else "portable"
    return implementation


def _check(features, rois, output_size, spatial_scale):
    """What is known before the graph runs; the ops check the rest."""
    if not features.dtype.is_floating:
        _invalid(f"features are {features.dtype.name}; expected floating-point numbers")
    if not features.shape.is_compatible_with([None] * 4):
        _invalid(f"features have shape {features.shape}; expected [B, H, W, C]")
    if not rois.shape.is_compatible_with([None, None, 4]):
        _invalid(f"rois have shape {rois.shape}; expected [B, R, 4]")
    if features.shape.rank and rois.shape.rank and not features.shape[:1].is_compatible_with(rois.shape[:1]):
        _invalid(f"features hold {features.shape[0]} images and rois {rois.shape[0]}; expected as many")
    if len(output_size) != 2 or min(output_size) < 1:
        _invalid(f"output_size is {output_size}; expected two positive numbers")
    if not 0 < spatial_scale < np.inf:
        _invalid(f"spatial_scale is {spatial_scale}; expected a positive number")


def _invalid(message):
    raise tf.errors.InvalidArgumentError(None, None, f"roi_pool: {message}")


# --- native -----------------------------------------------------------------------------------------------------------


def _native_roi_pool(features, rois, output_size, spatial_scale, training):
    ops = native_ops()
    sizes = {"output_height": output_size[0], "output_width": output_size[1], "spatial_scale": spatial_scale}
    if training:
        return ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **sizes).pooled
    return ops.tf_fast_rcnn_roi_pool(features, rois, **sizes)


# Inference must not pay for the argmax that a gradient needs, and an op cannot know whether one will be asked for. So
# there are two ops, each with a gradient of its own. (tf.custom_gradient would run the op with argmax in every forward
# pass, and leave a Python function's name in saved graphs.)


@tf.RegisterGradient("TfFastRcnn>RoiPool")
def _roi_pool_gradient(op, pooled_gradient):
    """Finds the maxima again, as tf.nn.max_pool's gradient does."""
    attributes = {name: op.get_attr(name) for name in ("output_height", "output_width", "spatial_scale")}
    argmax = native_ops().tf_fast_rcnn_roi_pool_with_argmax(*op.inputs, **attributes).argmax
    return _features_gradient(op, pooled_gradient, argmax), None


@tf.RegisterGradient("TfFastRcnn>RoiPoolWithArgmax")
def _roi_pool_with_argmax_gradient(op, pooled_gradient, _):
    return _features_gradient(op, pooled_gradient, op.outputs[1]), None


def _features_gradient(op, pooled_gradient, argmax):
    features, rois = op.inputs
    return native_ops().tf_fast_rcnn_roi_pool_grad(
        pooled_gradient, argmax, rois, tf.shape(features), spatial_scale=op.get_attr("spatial_scale")
    )


@tf.RegisterGradient("TfFastRcnn>RoiPoolGrad")
def _no_second_gradient(op, _):
    raise NotImplementedError(
        "roi_pool has no gradient of its gradient: found a gradient taken through the native RoI pooling's backward "
        'pass; expected first gradients alone; take implementation="portable" for second ones'
    )


# --- portable ---------------------------------------------------------------------------------------------------------
# Every bin is the maximum of at most four overlapping windows whose sides are powers of two, taken from a table of the
# maxima of all such windows (a sparse table in two dimensions).


def _portable_roi_pool(features, rois, output_size, spatial_scale):
    images, height, width, channels = tf.unstack(tf.shape(features), num=4)
    # A wrong number of images fails here; below it could be broadcast.
    rois = tf.reshape(rois, [images, tf.shape(rois)[1], 4])
    # False for NaN alone; XLA and the graph optimisers may take x == x for granted.
    is_number = tf.abs(rois) >= 0
    cells = to_cells(tf.where(is_number, rois, 0.0), spatial_scale)
    y1, x1, y2, x2 = tf.unstack(cells, axis=-1)
    top, bottom, rows_empty = _window_pairs(*_bins(y1, y2, output_size[0], height), height)
    left, right, columns_empty = _window_pairs(*_bins(x1, x2, output_size[1], width), width)

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


def to_cells(pixels, spatial_scale):
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


# --- layer ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tf_fast_rcnn")
class RoIPooling(keras.layers.Layer):
    """`roi_pool` as a Keras layer, called with features `[B, H, W, C]` and rois `[B, R, 4]`.

    With several output sizes it is spatial pyramid pooling, of which RoI pooling is the case of one level (section 2.1
    of the paper): K. He et al., "Spatial pyramid pooling in deep convolutional networks for visual recognition", ECCV
    2014, with levels of 1x1, 2x2, 3x3 and 6x6. SPPnet, with which the paper compares itself (sections 1.1 and 1.2),
    stands on it.

    Under mixed precision the features keep the type they come in, and the RoIs stay float32: in bfloat16 neighbouring
    pixels above 256 are one number.

    Args:
        output_size: (P, Q), rows and columns of bins; or the levels of a pyramid: see `pooling_grids`.
        spatial_scale: cells of the features a pixel.
        implementation: "auto", "native" or "portable"; kept as it is in the configuration, so that a model saved with
            "auto" takes what there is where it is loaded.

    Returns:
        `[B, R, P, Q, C]`; of a pyramid `[B, R, sum of P * Q, C]`: the bins of each level in row-major order, level
        after level.

    Raises:
        InputError: for an output size that is none.

    Example:
        >>> layer = RoIPooling((7, 7), spatial_scale=1 / 16)
        >>> layer(tf.zeros([2, 38, 63, 512]), tf.zeros([2, 300, 4])).shape
        TensorShape([2, 300, 7, 7, 512])
        >>> RoIPooling((1, 2, 3, 6))(tf.zeros([2, 38, 63, 512]), tf.zeros([2, 300, 4])).shape
        TensorShape([2, 300, 50, 512])
    """

    def __init__(self, output_size=(7, 7), spatial_scale=1 / 16, implementation="auto", **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.output_size = pooling_grids(output_size)
        self.spatial_scale = float(spatial_scale)
        self.implementation = implementation
        # XLA cannot compile the native op; Keras asks here before it picks XLA of its own accord.
        self.supports_jit = choose_implementation(implementation) == "portable"

    def call(self, features, rois, training=False):
        def pool(grid):
            return roi_pool(features, rois, grid, self.spatial_scale, self.implementation, bool(training))

        if not is_pyramid(self.output_size):
            return pool(self.output_size)
        levels = [pool(grid) for grid in self.output_size]
        shape = tf.shape(levels[0])
        images, regions, channels = shape[0], shape[1], features.shape[-1] or shape[-1]
        # Not -1 for the bins: where there are no RoIs, it could be any number.
        lists = [
            tf.reshape(level, [images, regions, math.prod(grid), channels])
            for level, grid in zip(levels, self.output_size, strict=True)
        ]
        return tf.concat(lists, axis=2)

    def compute_output_shape(self, features_shape, rois_shape):
        bins = self.output_size
        if is_pyramid(bins):
            bins = (sum(map(math.prod, bins)),)
        return (features_shape[0], rois_shape[1], *bins, features_shape[3])

    def compute_output_spec(self, features, rois, training=False):
        return keras.KerasTensor(self.compute_output_shape(features.shape, rois.shape), features.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "spatial_scale": self.spatial_scale,
            "implementation": self.implementation,
        }


def pooling_grids(output_size):
    """What an output size means: `(P, Q)` of one grid, or the `((P, Q), ...)` of a pyramid's levels.

    One number is a square, and two are rows and columns. More numbers are a pyramid of squares, as in (1, 2, 3, 6); any
    other pyramid is written with pairs, as in ((3, 3), (6, 6)), in which numbers stand for squares too.

    Raises:
        InputError: for anything else.

    Example:
        >>> pooling_grids(7), pooling_grids((6, 7)), pooling_grids((1, 2, 3)), pooling_grids([(1, 2), 3])
        ((7, 7), (6, 7), ((1, 1), (2, 2), (3, 3)), ((1, 2), (3, 3)))
    """

    def grid(size):
        pair = tuple(np.atleast_1d(size).tolist())
        if len(pair) not in (1, 2) or not all(isinstance(side, int) and side > 0 for side in pair):
            raise ValueError
        return pair[0], pair[-1]

    try:
        is_grid = np.isscalar(output_size) or (len(output_size) <= 2 and all(map(np.isscalar, output_size)))
        return grid(output_size) if is_grid else tuple(map(grid, output_size))
    except (TypeError, ValueError):
        raise InputError(
            f"pooled_size: found {output_size!r}; expected one number (a square), two (rows, columns), or levels of a "
            "pyramid: three numbers or more (squares), or pairs; change it"
        ) from None


def is_pyramid(grids):
    """Whether what `pooling_grids` gave has levels."""
    return isinstance(grids[0], tuple)
