"""Times RoI pooling beside ONNX Runtime's MaxRoiPool and the mere writing of the output.

    python benchmarks/roi_pooling.py --rois 300 2000

The implementations take turns in one process, on the same inputs; medians. Peers that are not installed are left out
with a word.
"""

import argparse
import statistics
import time

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import tf_fast_rcnn as frcnn

HEIGHT, WIDTH = 38, 63


def random_rois(number, rng):
    """RoIs float32 `[1, number, 4]`, `[y1, x1, y2, x2]`, all over a 600 x 1000 image."""
    corners = rng.uniform(0, [[[600, 1000]]], (2, number, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)[None]


def contestants(features, rois, threads):
    """Name -> function that pools once."""
    pooled = np.empty((rois.shape[1], 7, 7, features.shape[3]), np.float32)
    functions = {"write the output": lambda: pooled.fill(1.0)}
    for implementation in ("native", "portable"):
        if implementation == "native" and not frcnn.native_ops_available():
            print("native: left out, the compiled op is not available")
            continue
        pool = tf.function(
            lambda features, rois, name=implementation: frcnn.roi_pool(features, rois, implementation=name)
        )
        functions[implementation] = lambda pool=pool: pool(features, rois)
    if (session := onnx_session(threads)) is not None:
        channels_first = np.ascontiguousarray(np.moveaxis(features.numpy(), 3, 1))
        xyxy = np.concatenate([np.zeros((rois.shape[1], 1), np.float32), rois[0].numpy()[:, [1, 0, 3, 2]]], axis=1)
        functions["ONNX Runtime"] = lambda: session.run(None, {"features": channels_first, "rois": xyxy})
    return functions


def onnx_session(threads):
    """An ONNX Runtime session of one MaxRoiPool node, or None."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        print(f"ONNX Runtime: left out, {error.name} is not installed")
        return None
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("MaxRoiPool", ["features", "rois"], ["pooled"], pooled_shape=[7, 7], spatial_scale=1 / 16)
    graph = helper.make_graph(
        [node],
        "roi_pooling",
        [
            helper.make_tensor_value_info("features", float32, None),
            helper.make_tensor_value_info("rois", float32, None),
        ],
        [helper.make_tensor_value_info("pooled", float32, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measure(functions, rounds):
    """Median seconds of each function; they take turns, after one round that does not count."""
    seconds = {name: [] for name in functions}
    for turn in tqdm(range(rounds + 1), unit="round", delay=2):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="example: python benchmarks/roi_pooling.py --rois 300 2000"
    )
    parser.add_argument("--rois", type=int, nargs="+", default=[300, 2000], metavar="N", help="default: 300 2000")
    parser.add_argument("--channels", type=int, default=512, metavar="N", help="default: 512")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="default: 15")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    rng = np.random.default_rng(0)
    features = tf.constant(rng.standard_normal((1, HEIGHT, WIDTH, options.channels), np.float32))
    print(f"features 1 x {HEIGHT} x {WIDTH} x {options.channels} float32, 7 x 7 bins, {options.threads} threads")
    for number in options.rois:
        medians = measure(contestants(features, tf.constant(random_rois(number, rng)), options.threads), options.rounds)
        reference = medians.get("native", medians["portable"])
        for name, seconds in medians.items():
            print(f"{number:5} RoIs  {name:18} {1e3 * seconds:8.1f} ms  {seconds / reference:6.2f} x")


if __name__ == "__main__":
    main()
