"""Times ops/convolutions.py against TensorFlow's convolutions and gradients, on the layers of EfficientNet-Lite0.

    python tools/convolutions.py --rounds 15
    TF_ENABLE_ONEDNN_OPTS=1 python tools/convolutions.py        # TensorFlow's kernels of oneDNN, or 0 for Eigen's

Prints the sum of the medians of all layers in milliseconds, for a batch of two images as in training. "floor" is the
time of adding 1 to the input of each layer, which reads and writes it once.
"""

import argparse
import collections
import os

os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.benchmarks.measure import median_seconds
from tf_fast_rcnn.models.parts import backbone_of
from tf_fast_rcnn.ops.convolutions import depthwise_conv2d, pointwise_conv2d


def layers_and_inputs(height, width):
    """(layer, shape of its input) of all depthwise and 1x1 convolutions, for two images of this size."""
    network = backbone_of(frcnn.fast_rcnn("efficientnet_lite0", 1, weights=None))
    found = [layer for layer in network.layers if is_depthwise(layer) or is_pointwise(layer)]
    maps = keras.Model(network.inputs, [layer.input for layer in found])(np.zeros((2, height, width, 3), np.float32))
    return [(layer, tuple(each.shape)) for layer, each in zip(found, maps, strict=True)]


def is_depthwise(layer):
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def is_pointwise(layer):
    return isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)


def depthwise_by_tensorflow(images, kernel, bias, strides):
    return tf.nn.relu6(tf.nn.bias_add(tf.nn.depthwise_conv2d(images, kernel, [1, *strides, 1], "SAME"), bias))


def depthwise_by_us(images, kernel, bias, strides):
    return depthwise_conv2d(images, kernel, bias, strides, activation="relu6")


def pointwise_by_tensorflow(images, kernel, bias, strides):
    return tf.nn.bias_add(tf.nn.conv2d(images, kernel, 1, "SAME"), bias)


def pointwise_by_us(images, kernel, bias, strides):
    return pointwise_conv2d(images, kernel, bias)


def forward(convolve, images, kernel, bias, strides):
    """A function without arguments."""
    return tf.function(lambda: convolve(images, kernel, bias, strides), autograph=False)


def training(convolve, images, kernel, bias, strides):
    """A function without arguments: the convolution and its gradients."""

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel, bias])
            output = convolve(images, kernel, bias, strides)
        return tape.gradient(output, [images, kernel, bias], output_gradients=tf.ones_like(output))

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # each layer has functions of its own
    rng, totals = np.random.default_rng(0), collections.Counter()
    for layer, shape in layers_and_inputs(*options.size):
        kernel = tf.constant(rng.normal(size=layer.kernel.shape).astype(np.float32))
        bias = tf.zeros([kernel.shape[2] if is_depthwise(layer) else kernel.shape[3]])
        images = tf.constant(rng.normal(size=shape).astype(np.float32))
        arguments = images, kernel, bias, layer.strides
        if is_depthwise(layer):
            kind, (theirs, ours) = "depthwise", (depthwise_by_tensorflow, depthwise_by_us)
        else:
            kind, (theirs, ours) = "1x1", (pointwise_by_tensorflow, pointwise_by_us)
        functions = {(kind, "floor", ""): tf.function(lambda images=images: images + 1.0, autograph=False)}
        for name, convolve in (("TensorFlow", theirs), ("ours", ours)):
            functions[kind, "forward", name] = forward(convolve, *arguments)
            functions[kind, "forward and gradients", name] = training(convolve, *arguments)
        totals.update(median_seconds(functions, options.rounds))
    for (kind, what, name), seconds in sorted(totals.items()):
        print(f"{kind:10} {what:22} {name:10} {1000 * seconds:8.1f} ms")


if __name__ == "__main__":
    main()
