"""Export for TensorFlow.js: the whole detector as a graph model for browsers and Node.js.

The official tensorflowjs converter depends on packages that conflict with this version of TensorFlow. Its format is
simple and is written here directly ("graph-model" of TensorFlow.js 4): model.json contains the graph (a GraphDef as
JSON), the signature and the list of weights, and files of 4 MB in the same folder contain the concatenated weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

from tf_fast_rcnn import __version__
from tf_fast_rcnn.errors import InputError, check_choice
from tf_fast_rcnn.export.single_image import description, portable_detector, serving_function
from tf_fast_rcnn.files import new_folder

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.inference.settings import DetectionSettings

PRECISIONS = ("float32", "float16")

# Maximum size of a weight file; browsers cache files of this size.
_SHARD_BYTES = 4 << 20
# NumPy dtypes to dtypes of TensorFlow.js tensors; 64-bit integers are only used for shapes and indices.
_TYPES = {"float32": ("float32", "<f4"), "int32": ("int32", "<i4"), "int64": ("int32", "<i4"), "bool": ("bool", "u1")}
_OPTIMIZERS = ("debug_stripper", "constfold", "arithmetic", "dependency", "constfold", "dependency")


def export_tfjs(
    model: keras.Model,
    directory: StrPath,
    *,
    class_names: Sequence[str],
    settings: DetectionSettings | None = None,
    image_size: tuple[int, int] | None = None,
    num_proposals: int | None = None,
    precision: str = "float32",
    proposals: ProposalSettings | FileProposals | None = None,
) -> None:
    """Writes a folder to be loaded with `tf.loadGraphModel("DIR/model.json")` of TensorFlow.js.

    The signature is that of `export_tflite`, except that `images` is int32 `[1, H, W, 3]`, as returned by
    `tf.browser.fromPixels`. The class names and the settings are in `model.json` under "userDefinedMetadata".

    Args:
        model: a model created by `fast_rcnn`.
        directory: a new folder, created atomically.
        class_names: names of the classes 1..K.
        settings: `DetectionSettings` with one shorter side, fixed in the graph; None for the defaults.
        image_size: fixed (H, W) in pixels; None: any size.
        num_proposals: fixed R; None: any number.
        precision: "float32", or "float16": weights take half the space in files and are converted to float32 on
            loading.
        proposals: `ProposalSettings` of training, stored in the metadata.

    Raises:
        InputError: if the directory exists, the settings are not supported, the number of class names is not that of
            the model, or a layer needs an op that TensorFlow.js does not have.

    Example:
        >>> export_tfjs(model, "cells.tfjs", class_names=["RBC", "WBC"])                           # doctest: +SKIP
    """
    directory = Path(directory)
    if directory.exists():
        raise InputError(f"{directory}: found an existing folder or file; expected a new folder; choose another one")
    check_choice("precision", precision, PRECISIONS)
    detector = portable_detector(model, settings, class_names)
    function = serving_function(detector, image_size, num_proposals, tf.int32).get_concrete_function()
    graph, signature = _frozen(function)
    _check_ops(graph)
    weights, content = _take_weights(graph, precision)
    shards = [content[begin : begin + _SHARD_BYTES] for begin in range(0, len(content), _SHARD_BYTES)]
    names = [f"group1-shard{number}of{len(shards)}.bin" for number in range(1, len(shards) + 1)]
    stored = {
        "format": "graph-model",
        "generatedBy": f"tensorflow {tf.__version__}",
        "convertedBy": f"tf_fast_rcnn {__version__}",
        "signature": signature,
        "userDefinedMetadata": description(detector, class_names, image_size, num_proposals, precision, proposals),
        "modelTopology": json_format.MessageToDict(graph),
        "weightsManifest": [{"paths": names, "weights": weights}],
    }
    _write(directory, {**dict(zip(names, shards, strict=True)), "model.json": json.dumps(stored).encode()})


def _frozen(function):
    """The function as a GraphDef without variables and functions, and its signature in the JSON of TensorFlow.js."""
    frozen = convert_variables_to_constants_v2(function)
    inputs = {tensor.op.name: tensor for tensor in frozen.inputs}
    outputs = dict(zip(sorted(function.structured_outputs), frozen.outputs, strict=True))
    signature = {
        side: {name: _tensor_info(tensor) for name, tensor in tensors.items()}
        for side, tensors in (("inputs", inputs), ("outputs", outputs))
    }
    return _optimized(frozen.graph, [*inputs.values(), *outputs.values()]), signature


def _tensor_info(tensor):
    shape = json_format.MessageToDict(tensor.shape.as_proto())
    return {
        "name": tensor.name,
        "dtype": f"DT_{'FLOAT' if tensor.dtype.is_floating else 'INT32'}",
        "tensorShape": shape,
    }


def _optimized(graph, kept):
    """The GraphDef after constant folding, which merges batch normalisation into the convolutions."""
    described = meta_graph_pb2.MetaGraphDef(graph_def=graph.as_graph_def())
    described.collection_def["train_op"].node_list.value.extend(tensor.name for tensor in kept)
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers[:] = _OPTIMIZERS
    rewriting.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.TWO
    return tf_optimizer.OptimizeGraph(config, described)


def _check_ops(graph):
    known = set(resources.files(__package__).joinpath("tfjs_ops.txt").read_text().split())
    if unknown := sorted({node.op for node in graph.node} - known):
        raise InputError(
            f"TensorFlow.js: found layers with the ops {', '.join(unknown)}; expected ops that TensorFlow.js supports; "
            "choose another backbone"
        )


def _take_weights(graph, precision):
    """Removes the values of constants from the graph; returns their entries for model.json, and their bytes."""
    weights, content = [], []
    for node in graph.node:
        if node.op != "Const":
            continue
        values = tf.make_ndarray(node.attr["value"].tensor)
        kind, stored = _TYPES[values.dtype.name]
        weight = {"name": node.name, "shape": list(values.shape), "dtype": kind}
        # Only the weights of layers are rounded, not the constants of RoI pooling and decoding.
        if precision == "float16" and kind == "float32" and values.ndim > 1:
            weight["quantization"], stored = {"dtype": "float16", "original_dtype": "float32"}, "<f2"
        weights.append(weight)
        content.append(values.astype(stored).tobytes())
        tensor = tf.make_tensor_proto(np.zeros(0, stored if kind == "int32" else kind))
        node.attr["value"].tensor.CopyFrom(tensor)
    return weights, b"".join(content)


def _write(directory, files):
    with new_folder(directory) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
