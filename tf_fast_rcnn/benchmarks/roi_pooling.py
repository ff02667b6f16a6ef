"""RoI pooling and its gradient beside ONNX Runtime, OpenVINO and the mere writing or reading of the same arrays."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.benchmarks.measure import median_seconds, peak_growth
from tf_fast_rcnn.ops.native import native_ops

# Of an image of 600 x 1000 at stride 16, as Caffe pools it.
HEIGHT, WIDTH, IMAGE_HEIGHT, IMAGE_WIDTH = 38, 63, 600, 1000
SIZES = {"output_height": 7, "output_width": 7, "spatial_scale": 1 / 16}


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A function that is timed, and the name of its floor: what the same outputs take to write, or inputs to read."""

    run: Callable
    floor: str


def measure_roi_pooling(rois: int, threads: int, rounds: int = 15, channels: int = 512) -> dict[str, Any]:
    """Times 7 x 7 pooling of one image's RoIs from float32 features `[1, 38, 63, channels]`.

    To be called in a fresh process: TensorFlow's number of threads is set once, and memory is to start afresh.

    Args:
        rois: number of RoIs, random over the image.
        threads: of every contestant.
        rounds: how often each is timed.
        channels: of the features.

    Returns:
        Dict: the arguments; "milliseconds", medians by contestant; "times_floor", by contestant; "portable_extra_mb",
        memory of the portable implementation's first run beside its output; "missing", why contestants were left out.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    rng = np.random.default_rng(0)
    features = tf.constant(rng.standard_normal((1, HEIGHT, WIDTH, channels), np.float32))
    boxes = tf.constant(random_rois(rois, rng))
    portable = tf.function(lambda features, rois: frcnn.roi_pool(features, rois, implementation="portable"))
    pooled, growth = peak_growth(lambda: portable(features, boxes))
    contestants = {
        **_floors(pooled.shape),
        "portable": Contestant(lambda: portable(features, boxes), "write float32"),
    }
    missing = {}
    for of_one_kind in (_native, _onnx_runtime, _openvino):
        try:
            contestants |= of_one_kind(features, boxes, threads)
        except (ImportError, frcnn.InputError) as error:
            missing[of_one_kind.__name__.strip("_")] = str(error)
    medians = median_seconds({name: contestant.run for name, contestant in contestants.items()}, rounds)
    return {
        "rois": rois,
        "threads": threads,
        "channels": channels,
        "milliseconds": {name: 1e3 * seconds for name, seconds in medians.items()},
        "times_floor": {name: medians[name] / medians[of.floor] for name, of in contestants.items()},
        "portable_extra_mb": (growth - pooled.numpy().nbytes) / 1e6,
        "missing": missing,
    }


def random_rois(
    number: int, rng: np.random.Generator, height: float = IMAGE_HEIGHT, width: float = IMAGE_WIDTH
) -> np.ndarray:
    """RoIs float32 `[1, number, 4]`, `[y1, x1, y2, x2]`, all over an image of a height and width in pixels."""
    corners = rng.uniform(0, [[[height, width]]], (2, number, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)[None]


def _floors(shape):
    functions = {
        "write float32": lambda: tf.fill(shape, 1.0),
        "write float32 + int32": lambda: (tf.fill(shape, 1.0), tf.fill(shape, 1)),
        "write bfloat16": lambda: tf.fill(shape, tf.constant(1.0, tf.bfloat16)),
    }
    return {name: Contestant(run, name) for name, run in functions.items()}


def _native(features, rois, threads):
    ops = native_ops()
    halves = tf.cast(features, tf.bfloat16)
    pooled, argmax = ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **SIZES)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    parts = [part for array in (pooled, argmax) for part in np.array_split(array.numpy().ravel(), threads)]
    shape, scale = features.shape, SIZES["spatial_scale"]
    return {
        "native": Contestant(lambda: ops.tf_fast_rcnn_roi_pool(features, rois, **SIZES), "write float32"),
        "native, bfloat16": Contestant(lambda: ops.tf_fast_rcnn_roi_pool(halves, rois, **SIZES), "write bfloat16"),
        "native with argmax": Contestant(
            lambda: ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **SIZES), "write float32 + int32"
        ),
        "read float32 + int32": Contestant(lambda: list(pool.map(np.max, parts)), "read float32 + int32"),
        "native backward": Contestant(
            lambda: ops.tf_fast_rcnn_roi_pool_grad(pooled, argmax, rois, shape, scale), "read float32 + int32"
        ),
    }


def _onnx_runtime(features, rois, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would go on in a busy loop while others are timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(_onnx_model(), options, providers=["CPUExecutionProvider"])
    inputs = dict(zip(("features", "rois"), _channels_first(features, rois), strict=True))
    return {"ONNX Runtime": Contestant(lambda: session.run(None, inputs), "write float32")}


def _onnx_model():
    import onnx

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("MaxRoiPool", ["features", "rois"], ["pooled"], pooled_shape=[7, 7], spatial_scale=1 / 16)
    inputs = [helper.make_tensor_value_info("features", float32, [None] * 4)]
    inputs.append(helper.make_tensor_value_info("rois", float32, [None, 5]))
    outputs = [helper.make_tensor_value_info("pooled", float32, None)]
    graph = helper.make_graph([node], "roi_pooling", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def _openvino(features, rois, threads):
    import openvino.opset13

    opset = openvino.opset13
    arrays = _channels_first(features, rois)
    inputs = [opset.parameter(array.shape, np.float32) for array in arrays]
    model = openvino.Model([opset.roi_pooling(*inputs, [7, 7], SIZES["spatial_scale"], "max")], inputs)
    # By default it computes in bfloat16 where the CPU can, and binds threads to cores, those of others too.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    compiled = openvino.compile_model(model, "CPU", settings)
    return {"OpenVINO": Contestant(lambda: compiled(arrays), "write float32")}


def _channels_first(features, rois):
    """Features [1, C, H, W] and rows image, x1, y1, x2, y2, as both peers take them."""
    rows = np.insert(rois[0].numpy()[:, [1, 0, 3, 2]], 0, 0, axis=1)
    return np.ascontiguousarray(np.moveaxis(features.numpy(), 3, 1)), rows
