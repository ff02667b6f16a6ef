"""Post-training 8-bit quantisation of the network layers in a TF Lite file.

The converter of TF Lite quantises whole graphs, including the RoI coordinates, which then fall into different bins.
Here only the layers of the network are quantised. RoI pooling, the predictor layers, decoding and non-maximum
suppression stay in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from tf_fast_rcnn.errors import InputError

# Tensor names start with those of the models from `models.parts.stages`. The predictor layers are small and stay in
# float32.
_LAYERS = r"^(convolve|classify)(_\d+)*/(?!box_|class_logits)"

# Axis of the output channels in the weights of layers with a bias.
_CHANNEL_AXES = {
    schema.BuiltinOperator.CONV_2D: 0,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    schema.BuiltinOperator.FULLY_CONNECTED: 0,
}
# Minimum weight of a channel, relative to its bias.
_LEAST_WEIGHT = 1e-4


def quantize_layers(data: bytes, samples: Sequence[Mapping[str, np.ndarray]]) -> bytes:
    """Quantises the layers of a float32 TF Lite model to int8.

    Weights are quantised per output channel. Activations are quantised per tensor, with the minimum and maximum over
    the samples.

    Args:
        data: content of a TF Lite file with the signature `serving_default`.
        samples: inputs of the signature, one dict per sample.

    Returns:
        The content of the quantised file.

    Raises:
        InputError: without samples, or without the package ai-edge-quantizer.
    """
    if not samples:
        raise InputError(
            "calibration: found no images; expected a few dozen typical ones; pass --calibration SPEC, e.g. the "
            "training data"
        )
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ImportError:
        raise InputError(
            "int8: found no package ai-edge-quantizer, which int8 needs; expected it to be installed; run "
            "pip install 'tf-fast-rcnn[tflite]'"
        ) from None
    layers = quantizer.Quantizer(with_room_for_biases(data))
    config = qtyping.OpQuantizationConfig.from_dict(recipe.static_wi8_ai8()[0]["op_config"])
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD"):
        layers.update_quantization_recipe(_LAYERS, qtyping.TFLOperationName[kind], config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        ranges = layers.calibrate({"serving_default": samples})
    return bytes(layers.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model)


def with_room_for_biases(data: bytes) -> bytes:
    """Adds a small weight to each channel that has a bias but almost zero weights; returns the new file content.

    A bias is a 32-bit integer scaled by the scales of the channel's weights and of the input. If batch normalisation
    has disabled a channel, this scale is so small that the bias, the only output of the channel, would be clipped.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    for graph in model.subgraphs:
        for op in graph.operators:
            axis = _CHANNEL_AXES.get(model.operatorCodes[op.opcodeIndex].builtinCode)
            if axis is None or len(op.inputs) < 3 or op.inputs[2] < 0:
                continue
            weights, bias = (graph.tensors[index] for index in op.inputs[1:3])
            if all(model.buffers[tensor.buffer].data is not None for tensor in (weights, bias)):
                values = _values(model, weights).copy()
                _raise_weights(np.moveaxis(values, axis, 0), _values(model, bias))
                model.buffers[weights.buffer].data = values.reshape(-1).view(np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _values(model, tensor):
    """The float32 values of a constant tensor."""
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape(tensor.shape)


def _raise_weights(weights, bias):
    """Raises the first weight of each channel in place if necessary; `weights` [channels, ...], `bias` [channels]."""
    least = _LEAST_WEIGHT * np.abs(bias)
    greatest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    first = (slice(None), *[0] * (weights.ndim - 1))
    weights[first] = np.where(greatest < least, least, weights[first])
