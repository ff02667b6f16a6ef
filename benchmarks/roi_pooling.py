"""Times RoI pooling and its gradient beside ONNX Runtime, OpenVINO and the mere writing or reading of the same arrays.

    python benchmarks/roi_pooling.py --rois 300 2000 --threads 1 2

The contestants take turns in one process, on the same inputs; medians. Each is set against its floor: the time in which
TensorFlow writes its outputs (forward) or NumPy reads its inputs (backward) with as many threads. Peers that are not
installed are left out with a word.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import pathlib
import statistics
import threading
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.native import native_ops

HEIGHT, WIDTH = 38, 63


def random_rois(number, rng):
    """RoIs float32 `[1, number, 4]`, `[y1, x1, y2, x2]`, all over a 600 x 1000 image."""
    corners = rng.uniform(0, [[[600, 1000]]], (2, number, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)[None]


def contestants(features, rois, threads):
    """Name -> (function that runs once, name of its floor)."""
    shape = (1, rois.shape[1], 7, 7, features.shape[3])
    functions = {
        "write float32": lambda: tf.fill(shape, 1.0),
        "write float32 + int32": lambda: (tf.fill(shape, 1.0), tf.fill(shape, 1)),
        "write bfloat16": lambda: tf.fill(shape, tf.constant(1.0, tf.bfloat16)),
    }
    functions = {name: (function, name) for name, function in functions.items()}
    if frcnn.native_ops_available():
        functions |= native_contestants(features, rois, threads)
    else:
        print("native: left out, the compiled op is not available")
    portable = tf.function(lambda features, rois: frcnn.roi_pool(features, rois, implementation="portable"))
    functions["portable"] = lambda: portable(features, rois), "write float32"
    for name, make in (("ONNX Runtime", onnx_session), ("OpenVINO", openvino_model)):
        if (run := make(threads)) is not None:
            channels_first = np.ascontiguousarray(np.moveaxis(features.numpy(), 3, 1))
            rows = np.concatenate([np.zeros((rois.shape[1], 1), np.float32), rois[0].numpy()[:, [1, 0, 3, 2]]], axis=1)
            functions[name] = lambda run=run, inputs=(channels_first, rows): run(*inputs), "write float32"
    return functions


def native_contestants(features, rois, threads):
    ops, sizes = native_ops(), {"output_height": 7, "output_width": 7, "spatial_scale": 1 / 16}
    halves = tf.cast(features, tf.bfloat16)
    pooled, argmax = ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **sizes)
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    parts = [part for array in (pooled, argmax) for part in np.array_split(array.numpy().ravel(), threads)]
    return {
        "native": (lambda: ops.tf_fast_rcnn_roi_pool(features, rois, **sizes), "write float32"),
        "native, bfloat16": (lambda: ops.tf_fast_rcnn_roi_pool(halves, rois, **sizes), "write bfloat16"),
        "native with argmax": (
            lambda: ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **sizes),
            "write float32 + int32",
        ),
        "read float32 + int32": (lambda: list(pool.map(np.max, parts)), "read float32 + int32"),
        "native backward": (
            lambda: ops.tf_fast_rcnn_roi_pool_grad(pooled, argmax, rois, features.shape, 1 / 16),
            "read float32 + int32",
        ),
    }


def onnx_model():
    import onnx

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("MaxRoiPool", ["features", "rois"], ["pooled"], pooled_shape=[7, 7], spatial_scale=1 / 16)
    inputs = [helper.make_tensor_value_info("features", float32, [None] * 4)]
    inputs.append(helper.make_tensor_value_info("rois", float32, [None, 5]))
    outputs = [helper.make_tensor_value_info("pooled", float32, None)]
    graph = helper.make_graph([node], "roi_pooling", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def onnx_session(threads):
    """A function of features and RoIs that runs ONNX Runtime's MaxRoiPool, or None."""
    try:
        import onnxruntime

        model = onnx_model()
    except ImportError as error:
        print(f"ONNX Runtime: left out, {error.name} is not installed")
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda features, rois: session.run(None, {"features": features, "rois": rois})


def openvino_model(threads):
    """The same with OpenVINO."""
    try:
        import openvino

        model = onnx_model()
    except ImportError as error:
        print(f"OpenVINO: left out, {error.name} is not installed")
        return None
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(model, b""), "CPU", {"INFERENCE_NUM_THREADS": threads}
    )
    return lambda features, rois: compiled([features, rois])


def measure(functions, rounds):
    """Median seconds of each function; they take turns, after one round that does not count."""
    seconds = {name: [] for name in functions}
    for turn in tqdm(range(rounds + 1), unit="round", delay=2):
        for name, (function, _) in functions.items():
            started = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def extra_memory(function):
    """MB by which the process grew at its peak while `function` ran, without its result."""
    pages, done = [], threading.Event()

    def watch():
        while not done.wait(0.001):
            pages.append(resident_bytes())

    before, watcher = resident_bytes(), threading.Thread(target=watch)
    watcher.start()
    result = function()
    done.set()
    watcher.join()
    return (max(pages, default=before) - before - result.numpy().nbytes) / 1e6


def resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def compare(number, threads, options):
    """Prints the table of one number of RoIs."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    rng = np.random.default_rng(0)
    features = tf.constant(rng.standard_normal((1, HEIGHT, WIDTH, options.channels), np.float32))
    rois = tf.constant(random_rois(number, rng))
    print(f"features 1 x {HEIGHT} x {WIDTH} x {options.channels} float32, {number} RoIs, 7 x 7 bins, {threads} threads")
    portable = tf.function(lambda features, rois: frcnn.roi_pool(features, rois, implementation="portable"))
    memory = extra_memory(lambda: portable(features, rois))
    functions = contestants(features, rois, threads)
    medians = measure(functions, options.rounds)
    reference = medians.get("native", medians["portable"])
    for name, (_, floor) in functions.items():
        seconds = medians[name]
        ratios = f"{seconds / medians[floor]:7.2f} x floor {seconds / reference:7.2f} x native"
        print(f"{name:22} {1e3 * seconds:8.1f} ms {ratios}")
    print(f"portable took {memory:.0f} MB beside its output")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="example: python benchmarks/roi_pooling.py --rois 300 2000"
    )
    parser.add_argument("--rois", type=int, nargs="+", default=[300, 2000], metavar="N", help="default: 300 2000")
    parser.add_argument("--channels", type=int, default=512, metavar="N", help="default: 512")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], metavar="N", help="default: 2")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="default: 15")
    options = parser.parse_args()
    for number in options.rois:
        for threads in options.threads:
            # TensorFlow's number of threads is set once in a process, and memory is to start afresh.
            process = multiprocessing.get_context("spawn").Process(target=compare, args=(number, threads, options))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
