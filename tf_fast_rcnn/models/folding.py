"""Batch normalisation with fixed statistics as part of the convolution before it.

Such batch normalisation is a product and a sum per channel. The convolution can do both: its kernel is multiplied by
the factors, and the rest is added to its bias. TensorFlow then runs the convolution, the bias and the activation as one
operation, and neither training nor detection has to read and write the whole feature map several times. The weights
stay what they are: kernels are multiplied whenever the network runs, which takes no time, and gradients are those of
the original kernels.
"""

from __future__ import annotations

import collections

import keras
import tensorflow as tf

from tf_fast_rcnn.ops.depthwise_conv import depthwise_conv2d

# Subclasses are not in the list: they may compute something else, such as standardised weights.
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def followed_by_normalization(network: keras.Model) -> dict[str, str]:
    """The convolutions of a functional model that can include the batch normalisation after them.

    Returns:
        Dict from the name of the convolution to that of the batch normalisation, which must be the only user of its
        output.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> maps = keras.layers.Conv2D(4, 3, name="conv1")(images)
        >>> maps = keras.layers.BatchNormalization(name="bn1")(maps)
        >>> followed_by_normalization(keras.Model(images, maps))
        {'conv1': 'bn1'}
    """
    nodes = [node for nodes in network._nodes_by_depth.values() for node in nodes]
    calls = collections.Counter(node.operation.name for node in nodes)
    users = collections.defaultdict(list)
    for node in nodes:
        for tensor in node.input_tensors:
            users[id(tensor)].append(node.operation)
    outputs, found = {id(tensor) for tensor in network.outputs}, {}
    for node in nodes:
        convolution, (output, *others) = node.operation, node.outputs
        if others or id(output) in outputs or calls[convolution.name] > 1 or not _takes_in(convolution):
            continue
        followers = users[id(output)]
        if len(followers) == 1 and _is_plain(followers[0]) and calls[followers[0].name] == 1:
            found[convolution.name] = followers[0].name
    return found


def _takes_in(layer):
    """Whether a layer is a convolution that can include a product and a sum per channel."""
    return (
        type(layer) in _CONVOLUTIONS
        and layer.activation is keras.activations.linear
        and layer.activity_regularizer is None
        and layer.data_format == "channels_last"
        and getattr(layer, "quantization_mode", None) is None
    )


def _is_plain(layer):
    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3)


def convolved(
    convolution: keras.layers.Layer,
    normalization: keras.layers.BatchNormalization,
    maps: tf.Tensor,
    training: bool | None = False,
) -> tf.Tensor:
    """The result of a convolution followed by batch normalisation with its moving statistics.

    Args:
        convolution, normalization: layers that `followed_by_normalization` found.
        maps: `[B, H, W, C]`.
        training: whether gradients will be computed. Depthwise convolutions then have the compiled gradient of
            `ops.depthwise_conv`. Without it, the graph has stock TensorFlow ops only and can be exported.

    Returns:
        `[B, h, w, D]`, in the dtype in which the normalisation computes.
    """
    factor, bias = _factor_and_bias(convolution, normalization)
    dtype = convolution.compute_dtype
    with tf.name_scope(convolution.name):
        found = _without_bias(convolution, tf.cast(maps, dtype), factor, training)
        return tf.cast(tf.nn.bias_add(found, tf.cast(bias, dtype)), normalization.compute_dtype)


def _factor_and_bias(convolution, normalization):
    factor = tf.math.rsqrt(_float32(normalization.moving_variance) + normalization.epsilon)
    if normalization.scale:
        factor *= _float32(normalization.gamma)
    bias = -_float32(normalization.moving_mean)
    if convolution.use_bias:
        bias += _float32(convolution.bias)
    bias *= factor
    return factor, bias + _float32(normalization.beta) if normalization.center else bias


def _without_bias(layer, maps, factor, training):
    """The convolution with its kernel multiplied by a factor for each output channel."""
    where = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    if type(layer) is keras.layers.Conv2D:
        return layer.convolution_op(maps, _scaled(layer.kernel, factor, maps.dtype))
    if type(layer) is keras.layers.DepthwiseConv2D:
        # The output channels of a depthwise kernel are its last two axes.
        kernel = _scaled(layer.kernel, tf.reshape(factor, layer.kernel.shape[-2:]), maps.dtype)
        if training and layer.dilation_rate == (1, 1):
            return depthwise_conv2d(maps, kernel, layer.strides, layer.padding.upper())
        return keras.ops.depthwise_conv(maps, kernel, data_format=layer.data_format, **where)
    kernels = tf.cast(layer.depthwise_kernel, maps.dtype), _scaled(layer.pointwise_kernel, factor, maps.dtype)
    return keras.ops.separable_conv(maps, *kernels, data_format=layer.data_format, **where)


def _scaled(kernel, factor, dtype):
    return tf.cast(_float32(kernel) * factor, dtype)


def _float32(variable):
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)
