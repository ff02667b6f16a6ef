"""A Fast R-CNN model in PyTorch: the same layers and weights in eager mode, channels last, to be timed beside ours.

PyTorch has no RoI pooling of its own. `roi_max_pool` is a plain loop over the bins by the same rule as `roi_pool`;
it shows that the networks are the same, and those who measure leave its time out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import torch
from torch.nn import functional

from tf_fast_rcnn.models.backbones.preprocessing import Preprocessing
from tf_fast_rcnn.models.fast_rcnn import BoxDenormalization


class PyTorchNetwork(torch.nn.Module):
    """A functional Keras model's graph, each layer replaced by PyTorch's with the same weights.

    Called with what the Keras model is called with and giving what it gives: feature maps are `[B, h, w, C]`. Within,
    they are `[B, C, h, w]` stored channels last, so that nothing is copied. What is frozen in Keras has no gradient.

    Args:
        network: a `keras.Model` of one input, such as the parts that `model.stages` gives.

    Raises:
        TypeError: where a layer has no counterpart here.

    Example:
        >>> PyTorchNetwork(stages(model).classify)(pooled)["class_logits"].shape      # doctest: +SKIP
        torch.Size([1, 300, 21])
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self._network = network
        self.parts = torch.nn.ModuleDict({layer.name: _as_pytorch(layer) for layer in _layers(network)})

    def forward(self, inputs: Any) -> Any:
        if inputs.ndim != 4:
            return self._run(self._network, inputs)
        maps = self._run(self._network, inputs.movedim(-1, 1))
        return keras.tree.map_structure(lambda of_one_stride: of_one_stride.movedim(1, -1), maps)

    def _run(self, network, inputs):
        def call(layer, inputs, **_):
            return self._run(layer, inputs) if isinstance(layer, keras.Model) else self.parts[layer.name](inputs)

        return network._run_through_graph(inputs, operation_fn=lambda layer: layer, call_fn=call)


def roi_max_pool(
    features: torch.Tensor, rois: torch.Tensor, output_size: tuple[int, int], spatial_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """RoI max pooling by a loop over the bins: the rule of `roi_pool`, which documents the arguments.

    Returns:
        pooled `[B, R, P, Q, C]`, and int64 of the same shape: the cell of each maximum, by number in the map's h x w
        cells; -1 where a bin is empty. Neither knows of gradients: see `roi_max_pool_gradient`.
    """
    features = features.detach()
    height, width, channels = features.shape[1:]
    pooled = features.new_zeros((*rois.shape[:2], *output_size, channels))
    argmax = torch.full(pooled.shape, -1)
    for image, number in np.ndindex(*rois.shape[:2]):
        y1, x1, y2, x2 = rois[image, number]
        rows = _bins(y1, y2, output_size[0], spatial_scale, height)
        columns = _bins(x1, x2, output_size[1], spatial_scale, width)
        for (p, (top, bottom)), (q, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
            if top < bottom and left < right:
                values, cells = features[image, top:bottom, left:right].flatten(0, 1).max(0)
                pooled[image, number, p, q] = values
                row, column = cells // (right - left), cells % (right - left)
                argmax[image, number, p, q] = (top + row) * width + left + column
    return pooled, argmax


def roi_max_pool_gradient(
    pooled_gradient: torch.Tensor, argmax: torch.Tensor, features_shape: Sequence[int]
) -> torch.Tensor:
    """The gradient of `roi_max_pool`'s features `[B, h, w, C]`: each bin's goes to the cell of its maximum."""
    images, _, _, channels = features_shape
    cells = argmax.reshape(images, -1, channels)
    values = torch.where(cells < 0, 0, pooled_gradient.reshape(cells.shape))
    gradient = torch.zeros((images, features_shape[1] * features_shape[2], channels), dtype=values.dtype)
    return gradient.scatter_add_(1, cells.clamp(min=0), values).reshape(features_shape)


def _bins(first, last, bins, spatial_scale, cells):
    """`(begin, end)` of every bin along one side of a RoI, cut to the map."""
    start, end = (_round(np.float32(pixel) * np.float32(spatial_scale)) for pixel in (first, last))
    step = np.float32(max(end - start + 1, 1)) / np.float32(bins)
    edges = ((math.floor(np.float32(p) * step), math.ceil(np.float32(p + 1) * step)) for p in range(bins))
    return [tuple(min(max(start + edge, 0), cells) for edge in pair) for pair in edges]


def _round(value):
    """As C rounds: halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def _layers(network):
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _as_pytorch(layer):
    convert = _CONVERSIONS.get(type(layer))
    if convert is None:
        raise TypeError(f"{layer.name}: found a {type(layer).__name__}; expected a layer that has a counterpart here")
    return convert(layer)


class _SameConvolution(torch.nn.Conv2d):
    """A convolution that pads as TensorFlow does: what does not divide evenly goes below and to the right."""

    def forward(self, maps):
        (top, bottom), (left, right) = map(self._padding, maps.shape[-2:], self.kernel_size, self.stride)
        if (top, left) == (bottom, right):
            return functional.conv2d(maps, self.weight, self.bias, self.stride, (top, left), 1, self.groups)
        return super().forward(functional.pad(maps, (left, right, top, bottom)))

    @staticmethod
    def _padding(size, kernel, stride):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def _convolution(layer):
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    kernel = layer.kernel.numpy().transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    groups = kernel.shape[0] if depthwise else 1
    channels = kernel.shape[1] * groups, kernel.shape[0]
    module = _SameConvolution(*channels, kernel.shape[2:], layer.strides, groups=groups, bias=layer.use_bias)
    return _finished(module, layer, kernel)


def _dense(layer):
    kernel = layer.kernel.numpy().T
    return _finished(torch.nn.Linear(*kernel.shape[::-1], layer.use_bias), layer, kernel)


class _FrozenBatchNormalization(torch.nn.BatchNorm2d):
    """Computes with the statistics of pre-training, as our models do, in training too."""

    def train(self, mode=True):
        return super().train(False)


def _batch_normalization(layer):
    module = _FrozenBatchNormalization(layer.gamma.shape[0], layer.epsilon)
    weights = {
        "weight": layer.gamma,
        "bias": layer.beta,
        "running_mean": layer.moving_mean,
        "running_var": layer.moving_variance,
    }
    module.load_state_dict({name: torch.tensor(value.numpy()) for name, value in weights.items()}, strict=False)
    return module.train().requires_grad_(False)


def _finished(module, layer, kernel):
    """With the Keras layer's weights and activation."""
    state = {"weight": torch.tensor(np.ascontiguousarray(kernel))}
    if layer.use_bias:
        state["bias"] = torch.tensor(layer.bias.numpy())
    module.load_state_dict(state)
    module.to(memory_format=torch.channels_last).requires_grad_(layer.trainable)
    if layer.activation is keras.activations.linear:
        return module
    if layer.activation is keras.activations.relu:
        return torch.nn.Sequential(module, torch.nn.ReLU(inplace=True))
    raise TypeError(f"{layer.name}: found activation {layer.activation.__name__}; expected relu or none")


class _Function(torch.nn.Module):
    """A layer without weights."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class _Preprocessing(torch.nn.Module):
    """Gives the type that the module is moved to: the network's."""

    def __init__(self, layer):
        super().__init__()
        self._channels = {"rgb": [0, 1, 2], "bgr": [2, 1, 0]}[layer.channel_order]
        self.register_buffer("mean", torch.tensor(layer.mean)[:, None, None])
        self.register_buffer("scale", torch.tensor(layer.scale)[:, None, None])

    def forward(self, images):
        preprocessed = (images[:, self._channels] - self.mean) * self.scale
        return preprocessed.to(self.mean.dtype, memory_format=torch.channels_last)


def _relu(layer):
    limits = (0.0, layer.max_value)
    return torch.nn.ReLU(inplace=True) if layer.max_value is None else torch.nn.Hardtanh(*limits, inplace=True)


def _reshape(layer):
    """RoIs stand in the second dimension, whose size Keras infers."""
    return _Function(lambda values: values.reshape(*values.shape[:2], *layer.target_shape[1:]))


def _denormalization(layer):
    mean, std = torch.tensor(layer.mean), torch.tensor(layer.std)
    return _Function(lambda normalized: normalized * std + mean)


_CONVERSIONS = {
    keras.layers.Add: lambda layer: _Function(lambda summands: summands[0] + summands[1]),
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Conv2D: _convolution,
    keras.layers.Dense: _dense,
    keras.layers.DepthwiseConv2D: _convolution,
    keras.layers.Dropout: lambda layer: torch.nn.Dropout(layer.rate),
    keras.layers.MaxPooling2D: lambda layer: torch.nn.MaxPool2d(layer.pool_size, layer.strides),
    keras.layers.ReLU: _relu,
    keras.layers.Rescaling: lambda layer: _Function(lambda values: values * layer.scale + layer.offset),
    keras.layers.Reshape: _reshape,
    BoxDenormalization: _denormalization,
    Preprocessing: _Preprocessing,
}
