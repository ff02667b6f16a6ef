"""Batch normalisation with fixed statistics as part of the convolution before it.

Such batch normalisation is a product and a sum per channel. The convolution can do both: its kernel is multiplied by
the factors, and the rest is added to its bias. TensorFlow then runs the convolution, the bias and the activation as one
operation, and neither training nor detection has to read and write the whole feature map several times. The weights
stay what they are: kernels are multiplied whenever the network runs, which takes no time, and gradients are those of
the original kernels.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from tf_fast_rcnn.ops.convolutions import depthwise_conv2d, pointwise_conv2d

# Subclasses are not in the list: they may compute something else, such as standardised weights.
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)

_compiled = contextvars.ContextVar("compiled", default=False)


@contextlib.contextmanager
def compiled_convolutions() -> Iterator[None]:
    """In this context, networks use the compiled ops of `ops.convolutions` in inference too, where they exist.

    Without it only training uses them, so that graphs for inference have stock TensorFlow ops only and can be exported.

    Example:
        >>> with compiled_convolutions():                                        # doctest: +SKIP
        ...     maps = network(images, training=False)
    """
    token = _compiled.set(True)
    try:
        yield
    finally:
        _compiled.reset(token)


class Followers(NamedTuple):
    """The layers after a convolution that can be part of it, by name.

    Attributes:
        normalization: the batch normalisation.
        activation: the layer after this, if it is ReLU or ReLU6.
        kind: "relu", "relu6", or "linear" without an activation.
    """

    normalization: str
    activation: str | None = None
    kind: str = "linear"


def followers_of_convolutions(network: keras.Model) -> dict[str, Followers]:
    """The convolutions of a functional model that can include the batch normalisation after them.

    Returns:
        Dict from the name of the convolution to its followers, each of which is the only user of the output before it.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> maps = keras.layers.Conv2D(4, 3, name="conv1")(images)
        >>> maps = keras.layers.BatchNormalization(name="bn1")(maps)
        >>> followers_of_convolutions(keras.Model(images, keras.layers.ReLU(6.0, name="relu1")(maps)))
        {'conv1': Followers(normalization='bn1', activation='relu1', kind='relu6')}
    """
    nodes = [node for nodes in network._nodes_by_depth.values() for node in nodes]
    calls = collections.Counter(node.operation.name for node in nodes)
    users, outputs = collections.defaultdict(list), {id(tensor) for tensor in network.outputs}
    for node in nodes:
        for tensor in node.input_tensors:
            users[id(tensor)].append(node)

    def only_follower(node):
        """The only user of a node's output, unless the layer of either is called again."""
        output, *others = node.outputs
        if others or id(output) in outputs or len(users[id(output)]) != 1:
            return None
        follower = users[id(output)][0]
        return follower if calls[follower.operation.name] == calls[node.operation.name] == 1 else None

    found = {}
    for node in nodes:
        normalization = only_follower(node) if _takes_in(node.operation) else None
        if normalization is None or not _is_plain(normalization.operation):
            continue
        activation = only_follower(normalization)
        kind = _kind_of_activation(activation.operation) if activation else None
        followers = (activation.operation.name, kind) if kind else ()
        found[node.operation.name] = Followers(normalization.operation.name, *followers)
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


def _kind_of_activation(layer):
    """The `kind` of a ReLU or ReLU6 layer; None for any other layer."""
    if type(layer) is keras.layers.ReLU and not layer.negative_slope and not layer.threshold:
        return {None: "relu", 6.0: "relu6"}.get(layer.max_value)
    functions = {keras.activations.relu: "relu", keras.activations.relu6: "relu6"}
    return functions.get(layer.activation) if type(layer) is keras.layers.Activation else None


def run_with_normalization_included(network: keras.Model, inputs: list, training: bool | None) -> list:
    """The outputs of a functional model whose convolutions include the frozen batch normalisation after them.

    Args:
        network, training: the model, and the argument of its call.
        inputs: list of the model's inputs.
    """
    compiled, including, included = bool(training) or _compiled.get(), {}, set()
    for name, followers in followers_of_convolutions(network).items():
        convolution, normalization = network.get_layer(name), network.get_layer(followers.normalization)
        if normalization.trainable:
            continue
        # TensorFlow fuses other convolutions with their activation by itself.
        includes_activation = followers.activation and compiled and _is_separable_part(convolution)
        kind = followers.kind if includes_activation else "linear"
        including[name] = _Convolved(convolution, normalization, kind, compiled)
        included |= {followers.normalization, *([followers.activation] if includes_activation else ())}

    def operation(layer):
        return including.get(layer.name) or ((lambda maps, **_: maps) if layer.name in included else layer)

    # The layers take `training` from the model's call.
    return network._run_through_graph(inputs, operation_fn=operation)


class _Convolved(NamedTuple):
    """Runs a convolution followed by batch normalisation with its moving statistics, and an activation."""

    convolution: keras.layers.Layer
    normalization: keras.layers.BatchNormalization
    activation: str
    compiled: bool

    def __call__(self, maps, **_):
        factor, bias = _factor_and_bias(self.convolution, self.normalization)
        dtype = self.convolution.compute_dtype
        maps, bias = tf.cast(maps, dtype), tf.cast(bias, dtype)
        with tf.name_scope(self.convolution.name):
            if self.compiled and _is_separable_part(self.convolution):
                found = self._by_our_ops(maps, factor, bias)
            else:
                found = tf.nn.bias_add(_without_bias(self.convolution, maps, factor), bias)
            return tf.cast(found, self.normalization.compute_dtype)

    def _by_our_ops(self, maps, factor, bias):
        layer = self.convolution
        if _is_pointwise(layer):
            return pointwise_conv2d(maps, _scaled(layer.kernel, factor, maps.dtype), bias, self.activation)
        kernel = _scaled_depthwise(layer.kernel, factor, maps.dtype)
        return depthwise_conv2d(maps, kernel, bias, layer.strides, layer.padding.upper(), self.activation)


def _is_separable_part(layer):
    """Whether `ops.convolutions` has the layer's convolution."""
    is_depthwise = type(layer) is keras.layers.DepthwiseConv2D and layer.dilation_rate == (1, 1)
    return is_depthwise or _is_pointwise(layer)


def _is_pointwise(layer):
    is_convolution = type(layer) is keras.layers.Conv2D
    return is_convolution and layer.kernel_size == layer.strides == (1, 1) and layer.groups == 1


def _factor_and_bias(convolution, normalization):
    factor = tf.math.rsqrt(_float32(normalization.moving_variance) + normalization.epsilon)
    if normalization.scale:
        factor *= _float32(normalization.gamma)
    bias = -_float32(normalization.moving_mean)
    if convolution.use_bias:
        bias += _float32(convolution.bias)
    bias *= factor
    return factor, bias + _float32(normalization.beta) if normalization.center else bias


def _without_bias(layer, maps, factor):
    """The convolution with its kernel multiplied by a factor for each output channel."""
    where = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    if type(layer) is keras.layers.Conv2D:
        return layer.convolution_op(maps, _scaled(layer.kernel, factor, maps.dtype))
    if type(layer) is keras.layers.DepthwiseConv2D:
        kernel = _scaled_depthwise(layer.kernel, factor, maps.dtype)
        return keras.ops.depthwise_conv(maps, kernel, data_format=layer.data_format, **where)
    kernels = tf.cast(layer.depthwise_kernel, maps.dtype), _scaled(layer.pointwise_kernel, factor, maps.dtype)
    return keras.ops.separable_conv(maps, *kernels, data_format=layer.data_format, **where)


def _scaled_depthwise(kernel, factor, dtype):
    # The output channels of a depthwise kernel are its last two axes.
    return _scaled(kernel, tf.reshape(factor, kernel.shape[-2:]), dtype)


def _scaled(kernel, factor, dtype):
    return tf.cast(_float32(kernel) * factor, dtype)


def _float32(variable):
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)
