"""Convolutions of separable networks on CPUs: compiled ops for depthwise ones, and matrix products for 1x1 ones.

TensorFlow's own CPU kernels take several times as long for the gradients of both.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from tf_fast_rcnn.ops.native import native_ops, native_ops_available

# Rows and columns.
Pair = tuple[int, int]

# Name -> the function, and its gradient from the gradient with respect to its output and this output.
ACTIVATIONS = {
    "linear": (tf.identity, lambda gradient, output: gradient),
    "relu": (tf.nn.relu, lambda gradient, output: tf.raw_ops.ReluGrad(gradients=gradient, features=output)),
    "relu6": (tf.nn.relu6, lambda gradient, output: tf.raw_ops.Relu6Grad(gradients=gradient, features=output)),
}


def depthwise_conv2d(
    images: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    activation: str = "linear",
) -> tf.Tensor:
    """`tf.nn.depthwise_conv2d` in the NHWC layout, bias and activation in one op, with faster gradients.

    The values are the same for any number of threads, and so are the gradients. They are TensorFlow's own if the
    compiled op cannot compute them: for types other than float32, for more than one kernel per channel, if the kernel's
    shape is unknown, if TensorFlow sees a GPU, under XLA (`jit_compile=True`), or without the compiled ops.

    Args:
        images: [N, H, W, C].
        kernel: [KH, KW, C, M]: M kernels per channel.
        bias: [C * M].
        strides: rows and columns; TensorFlow requires that they are equal.
        padding: "SAME" or "VALID", as TensorFlow defines them.
        activation: "linear", "relu" or "relu6".

    Returns:
        [N, OH, OW, C * M], with the dtype of the images. Differentiable once; a second derivative through the compiled
        ops raises NotImplementedError.

    Raises:
        tf.errors.InvalidArgumentError, ValueError: those of `tf.nn.depthwise_conv2d`.

    Example:
        >>> sums = depthwise_conv2d(tf.ones([1, 4, 4, 1]), tf.ones([3, 3, 1, 1]), tf.constant([0.5]), padding="VALID")
        >>> sums[0, ..., 0].numpy()
        array([[9.5, 9.5],
               [9.5, 9.5]], dtype=float32)
    """
    images, kernel, bias = map(tf.convert_to_tensor, (images, kernel, bias))
    rows, columns = map(int, strides)
    function, activation_gradient = ACTIVATIONS[activation]
    if not _is_native(images, kernel, padding):
        sums = tf.nn.depthwise_conv2d(images, kernel, [1, rows, columns, 1], padding)
        return function(tf.nn.bias_add(sums, bias))
    where = {"stride_rows": rows, "stride_columns": columns, "padding": padding}

    @tf.custom_gradient
    def convolve(images, kernel, bias):
        output = native_ops().tf_fast_rcnn_depthwise_conv(images, kernel, bias, activation=activation, **where)

        def gradient(of_output):
            of_sums = activation_gradient(of_output, output)
            return (
                native_ops().tf_fast_rcnn_depthwise_conv_input_grad(tf.shape(images), kernel, of_sums, **where),
                _kernel_gradient(images, kernel, of_sums, (rows, columns), padding),
                tf.raw_ops.BiasAddGrad(out_backprop=of_sums),
            )

        return output, gradient

    return convolve(images, kernel, bias)


def pointwise_conv2d(images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, activation: str = "linear") -> tf.Tensor:
    """A 1x1 convolution of stride 1, bias and activation: on CPUs a matrix product, and so are its gradients.

    Under XLA and if TensorFlow sees a GPU, it is TensorFlow's convolution. On CPUs that has slow gradients; and where
    oneDNN has no AVX-512, one image with ReLU6 takes several times as long as two
    (`findings/onednn_relu6_of_one_image.sh`).

    Args:
        images: [N, H, W, C].
        kernel: [1, 1, C, D].
        bias: [D].
        activation: "linear", "relu" or "relu6".

    Returns:
        [N, H, W, D], with the dtype of the images.

    Example:
        >>> sums = pointwise_conv2d(tf.ones([1, 1, 2, 3]), tf.ones([1, 1, 3, 1]), tf.constant([0.5]))
        >>> sums[0, 0, :, 0].numpy()
        array([3.5, 3.5], dtype=float32)
    """
    images, kernel = tf.convert_to_tensor(images), tf.convert_to_tensor(kernel)
    function, _ = ACTIVATIONS[activation]
    if not _on_cpu():
        return function(tf.nn.bias_add(tf.nn.conv2d(images, kernel, 1, "VALID"), bias))
    channels, filters = kernel.shape[2:]
    # The activation before the last reshape, so that TensorFlow fuses it with the product.
    pixels = function(
        tf.nn.bias_add(tf.reshape(images, [-1, channels]) @ tf.reshape(kernel, [channels, filters]), bias)
    )
    maps = tf.reshape(pixels, tf.concat([tf.shape(images)[:3], [filters]], 0))
    maps.set_shape([*images.shape[:3], filters])
    return maps


def _is_native(images, kernel, padding):
    return (
        images.dtype == kernel.dtype == tf.float32
        and padding in ("SAME", "VALID")
        and kernel.shape.is_fully_defined()
        and kernel.shape.rank == 4
        and kernel.shape[3] == 1
        and _on_cpu()
        and native_ops_available()
    )


def _on_cpu():
    """Whether TensorFlow's own CPU kernels would run."""
    in_xla = control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    return not in_xla and not tf.config.get_visible_devices("GPU")


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


@tf.RegisterGradient("TfFastRcnn>DepthwiseConvInputGrad")
@tf.RegisterGradient("TfFastRcnn>DepthwiseConvFilterGrad")
def _no_second_gradient(op, _):
    raise NotImplementedError(
        "depthwise_conv2d has no second derivative: found a gradient of its compiled gradient; expected first "
        "derivatives only; use tf.nn.depthwise_conv2d for second derivatives"
    )
