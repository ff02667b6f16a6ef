"""Post-training quantisation to 8 bits of a TF Lite file's layers, and of nothing else.

TF Lite's converter quantises whole graphs, the RoIs' coordinates too, whose bins then are others. Here tensors of the
network's layers alone become whole numbers; what lies between and behind (RoI pooling, the predictor layers' outputs,
decoding, suppression) computes in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from tf_fast_rcnn.errors import InputError

# The names of tensors begin with those of the models that `model.stages` makes. The predictor layers are small.
_LAYERS = r"^(convolve|classify)(_\d+)*/(?!box_|class_logits)"

# The axis of output channels in the weights of layers that have a bias.
_CHANNEL_AXES = {
    schema.BuiltinOperator.CONV_2D: 0,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    schema.BuiltinOperator.FULLY_CONNECTED: 0,
}
# Least weight of a channel, in units of its bias.
_LEAST_WEIGHT = 1e-4


def quantize_layers(data: bytes, samples: Sequence[Mapping[str, np.ndarray]]) -> bytes:
    """The flat buffer `data`, float32, with the layers in int8.

    Weights are quantised by output channel, activations by tensor, with the least and the greatest value that the
    samples show.

    Args:
        data: bytes of a TF Lite file with the signature `serving_default`.
        samples: sequence of dicts of its inputs.

    Raises:
        InputError: without samples, or without the package ai-edge-quantizer.
    """
    if not samples:
        raise InputError(
            "calibration: found no images; expected a few dozen like those to come; give --calibration SPEC, as that "
            "of training"
        )
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ImportError:
        raise InputError(
            "int8: found no package ai-edge-quantizer; expected it to be installed; run pip install "
            "'tf-fast-rcnn[tflite]'"
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
    """The flat buffer with a small weight in each channel that has a bias but hardly any weights.

    A bias is a whole number of 32 bits in units of its channel's weights and of the input. Where batch normalisation
    has switched a channel off, the unit would be so small that the bias, which is all that the channel gives, were cut
    off.
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
    """Raises the first weight of each channel, in place; `weights` [channels, ...], `bias` [channels]."""
    least = _LEAST_WEIGHT * np.abs(bias)
    greatest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    first = (slice(None), *[0] * (weights.ndim - 1))
    weights[first] = np.where(greatest < least, least, weights[first])
