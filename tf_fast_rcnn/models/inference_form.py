"""The form of a trained network that runs fastest: batch normalisation in the convolutions, weights as constants.

Batch normalisation with fixed statistics is a product and a sum per channel. The convolution before it can do both: its
kernel is multiplied by the factors, and the rest becomes its bias. TensorFlow then runs the convolution, the bias and
the activation as one operation. If weights are constants, TensorFlow brings them into the order that the processor's
instructions need once, and not in every call.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.models.pretrained import copy_layer, copy_weights

# Subclasses are not in the list: they may compute something else, such as standardised weights.
_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def folds(network: keras.Model) -> bool:
    """Whether `folded` changes anything: whether batch normalisation follows a convolution anywhere in the network."""
    return bool(_foldable(network)) or any(folds(layer) for layer in network.layers if _is_graph(layer))


def folded(network: keras.Model, weights_of: keras.Model | None = None) -> keras.Model:
    """A copy of a functional model in which convolutions include the batch normalisation that follows them.

    For inference only: batch normalisation uses its moving statistics. Batch normalisation that follows anything else
    than a convolution without activation stays a layer.

    Args:
        network: functional `keras.Model`; it is not modified. Models inside it are folded too.
        weights_of: a model of the same layers that has the weights, in any dtype; None: `network`.

    Returns:
        A `keras.Model` with the inputs, outputs and dtypes of `network`. In float32 its outputs differ by rounding
        errors only.

    Example:
        >>> images = keras.Input((8, 8, 3))
        >>> maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, use_bias=False)(images))
        >>> [type(layer).__name__ for layer in folded(keras.Model(images, maps)).layers]
        ['InputLayer', 'Conv2D']
    """
    source = weights_of or network
    normalizations = _foldable(network)
    dropped = set(normalizations.values())

    def copy(layer):
        if layer.name in dropped:
            return layer  # It is not called.
        if layer.name in normalizations:
            return _with_bias(layer)
        return folded(layer, source.get_layer(layer.name)) if _is_graph(layer) else copy_layer(layer)

    def call(layer, *args, **kwargs):
        return args[0] if layer.name in dropped else layer(*args, **kwargs)

    result = keras.models.clone_model(network, clone_function=copy, call_function=call)
    for layer in result.layers:
        if layer.name in normalizations:
            convolution, normalization = (source.get_layer(name) for name in (layer.name, normalizations[layer.name]))
            layer.set_weights(_folded_weights(convolution, normalization))
        elif layer.weights and not _is_graph(layer):
            copy_weights(source.get_layer(layer.name), layer)
    return result


def with_constants(network: keras.Model) -> Callable[[tf.Tensor], Any]:
    """The network for inference as a `tf.function`, with its present weights as constants.

    Args:
        network: `keras.Model` with one input. Later changes of its weights have no effect.
    """
    values = [(variable, keras.ops.convert_to_numpy(variable)) for variable in network.variables]

    @tf.function(autograph=False)
    def infer(images):
        constants = [(variable, tf.constant(value, variable.dtype)) for variable, value in values]
        with keras.StatelessScope(state_mapping=constants):
            return network(images, training=False)

    return infer


class WeightsSeen:
    """Remembers the values of variables, to find out later whether they have changed.

    On a CPU this takes neither memory nor a comparison of values: a tensor that was read from a variable shares its
    memory, and as long as the tensor exists, TensorFlow writes new values of the variable to other memory.
    """

    def __init__(self, variables: Iterable[keras.Variable]) -> None:
        values = [variable.value for variable in variables]
        # One function reads all in a few milliseconds; one by one, hundreds of variables take several times as long.
        self._read = tf.function(lambda: [tf.identity(value) for value in values], autograph=False)
        self._seen = self._read()

    def are_current(self) -> bool:
        """Whether all variables still have the values that they had when this object was made."""
        return all(map(_equal, self._seen, self._read()))


def _equal(before, now):
    return _address(before) == _address(now) or bool(tf.reduce_all(tf.equal(before, now)))


def _address(tensor):
    # A copy if the tensor is on a GPU: then the addresses differ, and values are compared.
    return np.asarray(tensor).__array_interface__["data"][0]


def _is_graph(layer):
    return isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth")


def _foldable(network):
    """Dict from the names of convolutions to those of the batch normalisation that follows each of them."""
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
        if len(followers) == 1 and _is_plain_normalization(followers[0]) and calls[followers[0].name] == 1:
            found[convolution.name] = followers[0].name
    return found


def _takes_in(layer):
    """Whether a layer is a convolution that can include a product and a sum per channel."""
    return (
        type(layer) in _CONVOLUTIONS
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and getattr(layer, "quantization_mode", None) is None
    )


def _is_plain_normalization(layer):
    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3)


def _with_bias(layer):
    # The values of the weights are set later, and drawing them would take time.
    initializers = {name: "zeros" for name in layer.get_config() if name.endswith("_initializer")}
    return type(layer).from_config({**layer.get_config(), **initializers, "use_bias": True})


def _folded_weights(convolution, normalization):
    """The weights of a convolution that includes batch normalisation: its kernels and its bias."""
    mean, variance = (
        np.asarray(each, np.float64) for each in (normalization.moving_mean, normalization.moving_variance)
    )
    factor = 1 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        factor = factor * np.asarray(normalization.gamma, np.float64)
    *kernels, kernel = (np.asarray(each, np.float64) for each in _kernels(convolution))
    bias = np.asarray(convolution.bias, np.float64) if convolution.use_bias else 0.0
    bias = (bias - mean) * factor
    if normalization.center:
        bias = bias + np.asarray(normalization.beta, np.float64)
    # The output channels are the last axis; of a depthwise kernel the last two.
    depthwise = type(convolution) is keras.layers.DepthwiseConv2D
    return [*kernels, kernel * (factor.reshape(kernel.shape[-2:]) if depthwise else factor), bias]


def _kernels(convolution):
    if type(convolution) is keras.layers.SeparableConv2D:
        return [convolution.depthwise_kernel, convolution.pointwise_kernel]
    return [convolution.kernel]
