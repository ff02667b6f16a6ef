"""Depthwise convolution whose kernel gradient is the compiled op of custom_ops/, several times as fast as TensorFlow's.

The convolution itself and the gradient of its input stay TensorFlow's. The nodes that `tf.custom_gradient` adds to a
graph do not prevent TensorFlow from fusing the convolution with the bias and the ReLU that follow.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from tf_fast_rcnn.ops.native import native_ops, native_ops_available

# Rows and columns.
Pair = tuple[int, int]


def depthwise_conv2d(images: tf.Tensor, kernel: tf.Tensor, strides: Pair = (1, 1), padding: str = "SAME") -> tf.Tensor:
    """`tf.nn.depthwise_conv2d` in the NHWC layout, with a faster gradient of the kernel on CPUs.

    The gradient is the same for any number of threads. It is TensorFlow's own if the compiled op cannot compute it: for
    types other than float32, for more than one kernel per channel, if the kernel's shape is unknown, if TensorFlow sees
    a GPU, under XLA (`jit_compile=True`), or without the compiled ops.

    Args:
        images: [N, H, W, C].
        kernel: [KH, KW, C, M]: M kernels per channel.
        strides: rows and columns; TensorFlow requires that they are equal.
        padding: "SAME" or "VALID", as TensorFlow defines them.

    Returns:
        [N, OH, OW, C * M], with the dtype of the images. Differentiable once; a second derivative through the compiled
        op raises NotImplementedError.

    Raises:
        tf.errors.InvalidArgumentError, ValueError: those of `tf.nn.depthwise_conv2d`.

    Example:
        >>> depthwise_conv2d(tf.ones([1, 4, 4, 1]), tf.ones([3, 3, 1, 1]), padding="VALID")[0, ..., 0].numpy()
        array([[9., 9.],
               [9., 9.]], dtype=float32)
    """
    images, kernel = tf.convert_to_tensor(images), tf.convert_to_tensor(kernel)
    rows, columns = map(int, strides)
    if not _is_native(images, kernel, padding):
        return tf.nn.depthwise_conv2d(images, kernel, [1, rows, columns, 1], padding)

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradient(of_output):
            arguments = images, kernel, of_output, (rows, columns), padding
            return _images_gradient(*arguments), _kernel_gradient(*arguments)

        return tf.nn.depthwise_conv2d(images, kernel, [1, rows, columns, 1], padding), gradient

    return convolve(images, kernel)


def _is_native(images, kernel, padding):
    return (
        images.dtype == kernel.dtype == tf.float32
        and padding in ("SAME", "VALID")
        and kernel.shape.is_fully_defined()
        and kernel.shape.rank == 4
        and kernel.shape[3] == 1
        and not tf.config.get_visible_devices("GPU")
        and not control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
        and native_ops_available()
    )


def _images_gradient(images, kernel, of_output, strides, padding):
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(images), filter=kernel, out_backprop=of_output, strides=[1, *strides, 1], padding=padding
    )


def _kernel_gradient(images, kernel, of_output, strides, padding):
    height, width = kernel.shape[:2]
    return native_ops().tf_fast_rcnn_depthwise_conv_filter_grad(
        images,
        of_output,
        _zeros_before(images, (height, width), strides, padding),
        kernel_height=height,
        kernel_width=width,
        stride_rows=strides[0],
        stride_columns=strides[1],
    )


def _zeros_before(images, kernel, strides, padding):
    """The zeros above and left of the images. "SAME" adds half of what is missing there, rounded down."""
    if padding == "VALID":
        return tf.zeros([2], tf.int32)
    sizes = images.shape[1:3]
    # A constant if the sizes are known.
    sizes = tf.constant(sizes.as_list()) if sizes.is_fully_defined() else tf.shape(images)[1:3]
    outputs = (sizes - 1) // strides + 1
    missing = (outputs - 1) * strides + kernel - sizes
    return tf.maximum(missing, 0) // 2


@tf.RegisterGradient("TfFastRcnn>DepthwiseConvFilterGrad")
def _no_second_gradient(op, _):
    raise NotImplementedError(
        "depthwise_conv2d has no second derivative: found a gradient of its compiled kernel gradient; expected first "
        "derivatives only; use tf.nn.depthwise_conv2d for second derivatives"
    )
