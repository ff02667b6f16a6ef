"""RoI max pooling (Fast R-CNN, section 2.1): each RoI of a feature map becomes a small map of fixed size.

There are two implementations of one rule, equal in every value: `native`, the compiled op of custom_ops/, and
`portable`, stock TensorFlow ops, which converts to TF Lite and TF.js and compiles with XLA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.errors import InputError, check_choice
from tf_fast_rcnn.ops.native import native_ops, native_ops_available, why_no_cuda
from tf_fast_rcnn.ops.portable_roi_pooling import portable_roi_pool

# An output size as it is given, see `pooling_grids`, and as that returns it.
PoolSize = int | Sequence[int | Sequence[int]]
Grid = tuple[int, int]
Grids = Grid | tuple[Grid, ...]
# A tensor's shape as Keras has it.
Shape = tuple[int | None, ...]

IMPLEMENTATIONS = ("auto", "native", "portable")


def roi_pool(
    features: tf.Tensor,
    rois: tf.Tensor,
    output_size: tuple[int, int] = (7, 7),
    spatial_scale: float = 1 / 16,
    implementation: str = "auto",
    training: bool = False,
) -> tf.Tensor:
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
    rows, columns = map(int, output_size)
    output_size, spatial_scale = (rows, columns), float(spatial_scale)
    _check(features, rois, output_size, spatial_scale)
    if choose_implementation(implementation) == "native":
        return _native_roi_pool(features, rois, output_size, spatial_scale, training)
    return portable_roi_pool(features, rois, output_size, spatial_scale)


def choose_implementation(implementation: str) -> str:
    """ "native" or "portable" for one of IMPLEMENTATIONS; InputError for another word."""
    check_choice("implementation", implementation, IMPLEMENTATIONS)
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

    def __init__(
        self, output_size: PoolSize = (7, 7), spatial_scale: float = 1 / 16, implementation: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.output_size = pooling_grids(output_size)
        self.spatial_scale = float(spatial_scale)
        self.implementation = implementation
        # XLA cannot compile the native op; Keras asks here before it picks XLA of its own accord.
        self.supports_jit = choose_implementation(implementation) == "portable"

    def call(self, features: tf.Tensor, rois: tf.Tensor, training: bool = False) -> tf.Tensor:
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

    def compute_output_shape(self, features_shape: Shape, rois_shape: Shape) -> Shape:
        bins = self.output_size
        if is_pyramid(bins):
            bins = (sum(map(math.prod, bins)),)
        return (features_shape[0], rois_shape[1], *bins, features_shape[3])

    def compute_output_spec(
        self, features: keras.KerasTensor, rois: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(features.shape, rois.shape), features.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_size": self.output_size,
            "spatial_scale": self.spatial_scale,
            "implementation": self.implementation,
        }


def pooling_grids(output_size: PoolSize, name: str = "output_size") -> Grids:
    """What an output size means: `(P, Q)` of one grid, or the `((P, Q), ...)` of a pyramid's levels.

    One number is a square, and two are rows and columns. More numbers are a pyramid of squares, as in (1, 2, 3, 6); any
    other pyramid is written with pairs, as in ((3, 3), (6, 6)), in which numbers stand for squares too.

    Args:
        output_size: as above.
        name: of the argument, for the message of an error.

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
        sizes: Any = output_size
        is_grid = np.isscalar(sizes) or (len(sizes) <= 2 and all(map(np.isscalar, sizes)))
        return grid(sizes) if is_grid else tuple(map(grid, sizes))
    except (TypeError, ValueError):
        raise InputError(
            f"{name}: found {output_size!r}; expected one number (a square), two (rows, columns), or levels of a "
            "pyramid: three numbers or more (squares), or pairs; change it"
        ) from None


def is_pyramid(grids: Grids) -> TypeGuard[tuple[Grid, ...]]:
    """Whether what `pooling_grids` gave has levels."""
    return isinstance(grids[0], tuple)
