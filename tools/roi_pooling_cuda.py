"""Times RoI pooling and its gradient on a GPU against torchvision.ops.roi_pool, on the same inputs.

    python tools/roi_pooling_cuda.py --rounds 20

Features are channels-last here and channels-first in torchvision, the native layout of each library. The contestants
alternate in one process. A turn queues several calls, waits for the device at the end, and divides the time by the
number of calls. Medians are compared with a lower bound: the time to write the outputs (forward), or to read and write
the arrays (backward), at this device's copy bandwidth. The exit code is 2 if there is no GPU, no torchvision or no CUDA
kernel of this package.
"""

import argparse
import statistics
import sys
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn.ops.native import native_ops, native_ops_available, why_no_cuda, why_unavailable

CELL = 16  # pixels
BINS = 7


class Size(NamedTuple):
    """Features `[images, height, width, channels]`, and RoIs of each image."""

    images: int
    height: int
    width: int
    channels: int
    rois: int

    def __str__(self):
        return f"{self.images} x {self.height} x {self.width} x {self.channels}, {self.images} x {self.rois} RoIs"


SIZES = (Size(1, 38, 63, 512, 300), Size(1, 38, 63, 512, 2000), Size(2, 38, 63, 512, 64), Size(8, 50, 84, 1024, 1000))


def obstacle():
    """Why nothing can be measured here, or None."""
    try:
        import torch
        import torchvision  # noqa: F401 (registers its ops in torch.ops)
    except ImportError as error:
        return f"{error.name} is not installed"
    if not tf.config.list_physical_devices("GPU") or not torch.cuda.is_available():
        return "TensorFlow and PyTorch do not both see a GPU"
    return why_no_cuda() if native_ops_available() else why_unavailable()


def random_inputs(size, dtype):
    """(features `[B, H, W, C]` of a NumPy dtype, rois float32 `[B, R, 4]` all over the image)."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal(size[:4], np.float32).astype(dtype)
    corners = rng.uniform(0, [CELL * size.height, CELL * size.width], (2, size.images, size.rois, 2))
    rois = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=-1)
    return features, rois.astype(np.float32)


def our_contestants(features, rois):
    """Name -> function that queues one call and returns its result."""
    ops, attributes = native_ops(), {"spatial_scale": 1 / CELL}
    sizes = attributes | {"output_height": BINS, "output_width": BINS}
    with tf.device("/GPU:0"):
        # Copy to the device; constants made from NumPy arrays may stay on the host.
        features, rois = tf.identity(tf.constant(features)), tf.identity(tf.constant(rois))
        pooled, argmax = ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **sizes)
    shape = tf.constant(features.shape)

    def on_gpu(function):
        def call():
            with tf.device("/GPU:0"):
                return function()

        return call

    return {
        "forward": on_gpu(lambda: ops.tf_fast_rcnn_roi_pool(features, rois, **sizes)),
        "forward with argmax": on_gpu(lambda: ops.tf_fast_rcnn_roi_pool_with_argmax(features, rois, **sizes)),
        "backward": on_gpu(lambda: ops.tf_fast_rcnn_roi_pool_grad(pooled, argmax, rois, shape, **attributes)),
    }


def torchvision_contestants(features, rois):
    """The same for torchvision, which always computes the argmax too."""
    import torch

    images, height, width, channels = features.shape
    features = torch.from_numpy(np.ascontiguousarray(np.moveaxis(features, 3, 1))).cuda()
    image_index = np.repeat(np.arange(images, dtype=np.float32), rois.shape[1])
    rows = np.column_stack([image_index, rois.reshape(-1, 4)[:, [1, 0, 3, 2]]]).astype(np.float32)
    rows = torch.from_numpy(rows).cuda().to(features.dtype)  # torchvision requires the features' type
    ops = torch.ops.torchvision
    pooled, argmax = ops.roi_pool(features, rows, 1 / CELL, BINS, BINS)
    sizes = (BINS, BINS, images, channels, height, width)
    return {
        "torchvision forward": lambda: ops.roi_pool(features, rows, 1 / CELL, BINS, BINS),
        "torchvision backward": lambda: ops._roi_pool_backward(pooled, rows, argmax, 1 / CELL, *sizes),
    }


def synchronize():
    """Waits until neither library has work left on the GPU."""
    import torch

    tf.test.experimental.sync_devices()
    torch.cuda.synchronize()


def measure(functions, rounds, calls):
    """Median seconds per call of each function; the functions alternate, after two warm-up rounds."""
    seconds = {name: [] for name in functions}
    for turn in tqdm(range(rounds + 2), unit="round", delay=2, leave=False):
        for name, function in functions.items():
            synchronize()
            started = time.perf_counter()
            for _ in range(calls):
                function()
            synchronize()
            if turn >= 2:
                seconds[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(values) for name, values in seconds.items()}


def copied_bytes_a_second():
    """Bytes read and written per second by a copy of 1 GiB on the device."""
    import torch

    source = torch.ones(1 << 28, device="cuda")
    target = torch.empty_like(source)
    seconds = measure({"copy": lambda: target.copy_(source)}, rounds=10, calls=5)["copy"]
    return 2 * source.nbytes / seconds


def moved_bytes(size, value_bytes):
    """Name -> bytes that must be written (forward), or read and written (backward)."""
    outputs = size.images * size.rois * BINS**2 * size.channels
    pooled, argmax = outputs * value_bytes, outputs * 4
    gradient = size.images * size.height * size.width * size.channels * value_bytes
    return {"forward": pooled, "forward with argmax": pooled + argmax, "backward": pooled + argmax + gradient}


def equal_share(ours, theirs):
    """The fraction of pooled values that are equal in both libraries."""
    theirs = theirs[0].permute(0, 2, 3, 1).cpu().numpy()
    return float(np.mean(ours.numpy().reshape(theirs.shape) == theirs))


def compare(size, dtype, bandwidth, options):
    """Prints the table of one size and type."""
    features, rois = random_inputs(size, dtype)
    ours, theirs = our_contestants(features, rois), torchvision_contestants(features, rois)
    equal = equal_share(ours["forward"](), theirs["torchvision forward"]())
    medians = measure(ours | theirs, options.rounds, options.calls)
    moved = moved_bytes(size, np.dtype(dtype).itemsize)
    print(f"\n{size}, {dtype}; {equal:.2%} of the values equal torchvision's")
    print(f"{'':22} {'median':>10} {'x floor':>9} {'torchvision':>12}")
    for name in ours:
        floor = moved[name] / bandwidth
        peer = medians[f"torchvision {name.split()[0]}"]
        print(
            f"{name:22} {1e6 * medians[name]:7.0f} us {medians[name] / floor:9.2f} "
            f"{1e6 * peer:9.0f} us = {peer / medians[name]:.1f} x ours"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="example: python tools/roi_pooling_cuda.py --rounds 20"
    )
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="default: 15")
    parser.add_argument("--calls", type=int, default=10, metavar="N", help="calls per turn; default: 10")
    options = parser.parse_args()
    if reason := obstacle():
        print(f"nothing measured: {reason}", file=sys.stderr)
        raise SystemExit(2)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # leave memory for PyTorch
    bandwidth = copied_bytes_a_second()
    print(f"the device copies {bandwidth / 1e9:.0f} GB/s (read + written)")
    for size in SIZES:
        for dtype in ("float32", "float16"):
            compare(size, dtype, bandwidth, options)


if __name__ == "__main__":
    main()
