"""depthwise_conv2d against a naive loop and TensorFlow; its compiled op also alone, under sanitizers."""

import os
import pathlib
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn.ops import depthwise_conv, native
from tf_fast_rcnn.ops.depthwise_conv import depthwise_conv2d
from tf_fast_rcnn.ops.native import native_ops

CUSTOM_OPS = pathlib.Path(__file__).parents[2] / "custom_ops"
KERNELS = CUSTOM_OPS / "cc/kernels"


def naive_kernel_gradient(images, gradients, kernel, stride, above, left):
    """[KH, KW, C, 1]: the definition, one tap of one output at a time."""
    _, height, width, channels = images.shape
    result = np.zeros((*kernel, channels, 1))
    for p, q in np.ndindex(gradients.shape[1:3]):
        for i, j in np.ndindex(kernel):
            y, x = p * stride + i - above, q * stride + j - left
            if 0 <= y < height and 0 <= x < width:
                result[i, j, :, 0] += (images[:, y, x] * gradients[:, p, q]).sum(axis=0)
    return result


def same_padding(size, kernel, stride):
    """(outputs, zeros before) of TensorFlow's "SAME"."""
    outputs = -(-size // stride)
    return outputs, max((outputs - 1) * stride + kernel - size, 0) // 2


def whole_numbers(rng, *shape):
    """Their sums are exact in any order."""
    return rng.integers(-9, 10, shape).astype(np.float32)


def filter_gradient(images, gradients, padding=(0, 0), kernel=(3, 3), strides=(1, 1)):
    return native_ops().tf_fast_rcnn_depthwise_conv_filter_grad(
        images,
        gradients,
        padding,
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        stride_rows=strides[0],
        stride_columns=strides[1],
    )


def gradients_of(convolve, images, kernel, weights):
    with tf.GradientTape() as tape:
        tape.watch([images, kernel])
        convolved = convolve(images, kernel)
        loss = tf.reduce_sum(convolved * weights)
    return [convolved, *tape.gradient(loss, [images, kernel])]


# --- values -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    images=st.integers(0, 3),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 63, 100]),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_naive_loop(images, height, width, channels, kernel, stride, padding, seed):
    rng = np.random.default_rng(seed)
    if padding == "SAME":
        rows, above = same_padding(height, kernel[0], stride)
        columns, left = same_padding(width, kernel[1], stride)
    else:
        rows, columns = (
            max(0, (size - taps) // stride + 1) for size, taps in zip((height, width), kernel, strict=True)
        )
        above = left = 0
    features = whole_numbers(rng, images, height, width, channels)
    gradients = whole_numbers(rng, images, rows, columns, channels)
    found = filter_gradient(features, gradients, (above, left), kernel, (stride, stride))
    expected = naive_kernel_gradient(features, gradients, kernel, stride, above, left)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("known_size", [True, False])
def test_equals_tensorflow(padding, stride, size, known_size):
    """In a graph, with and without static sizes of the images, and eagerly."""
    rng = np.random.default_rng(size)
    images, kernel = tf.constant(whole_numbers(rng, 2, 13, 18, 40)), tf.constant(whole_numbers(rng, size, size, 40, 1))

    def convolve(images, kernel):
        return depthwise_conv2d(images, kernel, (stride, stride), padding)

    def tensorflow(images, kernel):
        return tf.nn.depthwise_conv2d(images, kernel, [1, stride, stride, 1], padding)

    weights = tf.constant(whole_numbers(rng, *tensorflow(images, kernel).shape))
    expected = gradients_of(tensorflow, images, kernel, weights)
    signature = [tf.TensorSpec([2, 13, 18, 40] if known_size else [None, None, None, 40]), tf.TensorSpec(kernel.shape)]
    in_graph = tf.function(
        lambda images, kernel: gradients_of(convolve, images, kernel, weights), input_signature=signature
    )
    for found in (gradients_of(convolve, images, kernel, weights), in_graph(images, kernel)):
        for value, expected_value in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, expected_value)
    names = {operation.type for operation in in_graph.get_concrete_function().graph.get_operations()}
    assert "TfFastRcnn>DepthwiseConvFilterGrad" in names
    assert "DepthwiseConv2dNativeBackpropFilter" not in names


def test_rows_and_columns_may_differ():
    """TensorFlow's convolution cannot have two strides, but the op can."""
    rng = np.random.default_rng(0)
    images, gradients = whole_numbers(rng, 2, 9, 12, 20), whole_numbers(rng, 2, 4, 10, 20)
    found = filter_gradient(images, gradients, (2, 1), (5, 3), (2, 1))
    # Every second row of the gradient for stride 1 is 0.
    spread = np.zeros((2, 7, 10, 20), np.float32)
    spread[:, ::2] = gradients
    np.testing.assert_array_equal(found, naive_kernel_gradient(images, spread, (5, 3), 1, 2, 1))


# Many parts of rows and of channels. Random numbers, whose sums depend on the order.
RUN_ONCE = """
import sys
import numpy as np
import tensorflow as tf
from tf_fast_rcnn.ops.native import native_ops

tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
rng, results = np.random.default_rng(0), []
for size, channels in [(3, 600), (5, 41), (4, 300)]:
    images, gradients = (rng.normal(size=(3, 40, 30, channels)).astype(np.float32) for _ in range(2))
    results.append(native_ops().tf_fast_rcnn_depthwise_conv_filter_grad(
        images, gradients, [1, 1], kernel_height=size, kernel_width=size
    ).numpy().tobytes())
sys.stdout.write(b"".join(results).hex())
"""


def run_once(threads, level):
    command = [sys.executable, "-c", RUN_ONCE, str(threads)]
    environment = os.environ | {"TF_FAST_RCNN_CPU": level}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def test_the_same_bits_for_any_threads_and_instruction_set():
    expected = run_once(1, "avx512")
    assert len(expected) > 1000
    assert run_once(4, "avx512") == expected
    assert run_once(4, "avx2") == expected
    assert run_once(1, "baseline") == expected


def test_numbers_outside_the_images_do_not_matter():
    """An infinite gradient meets no zeros of the padding, which would make it a NaN."""
    gradients = np.ones((1, 4, 4, 20), np.float32)
    gradients[0, 0, 0] = np.inf
    found = filter_gradient(np.ones((1, 4, 4, 20), np.float32), gradients, (1, 1))
    assert not np.isnan(found).any()
    np.testing.assert_array_equal(found[0, 0], 9)
    assert np.isinf(found[2, 2]).all()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "gradients", "padding", "message"),
    [
        ((2, 8, 8), (2, 8, 8, 3), [1, 1], "images: shape is .2,8,8.; expected .N, H, W, C."),
        ((2, 8, 8, 3), (2, 8, 8), [1, 1], "gradients: shape is .2,8,8.; expected .2, OH, OW, 3."),
        ((2, 8, 8, 3), (1, 8, 8, 3), [1, 1], "gradients: shape is .1,8,8,3."),
        ((2, 8, 8, 3), (2, 8, 8, 4), [1, 1], "gradients: shape is .2,8,8,4."),
        ((2, 8, 8, 3), (2, 10, 8, 3), [1, 1], "gradients: OH is 10; expected at most 9 for 8 pixels"),
        ((2, 8, 8, 3), (2, 8, 9, 3), [1, 0], "gradients: OW is 9; expected at most 8 for 8 pixels"),
        ((2, 0, 8, 3), (2, 1, 8, 3), [1, 1], "gradients: OH is 1; expected at most 0"),
        ((2, 8, 8, 3), (2, 8, 8, 3), [-1, 1], "padding: value is -1; expected 0 to 2"),
        ((2, 8, 8, 3), (2, 8, 8, 3), [1, 3], "padding: value is 3; expected 0 to 2 for a kernel of 3"),
        ((2, 8, 8, 3), (2, 8, 8, 3), [1], "padding: shape is .1.; expected .2."),
    ],
)
def test_errors(images, gradients, padding, message):
    """Without static shapes, so that the op itself has to check them."""
    arrays = np.zeros(images, np.float32), np.zeros(gradients, np.float32), np.array(padding, np.int32)
    signature = [tf.TensorSpec(None, array.dtype) for array in arrays]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(filter_gradient, input_signature=signature)(*map(tf.constant, arrays))


@pytest.mark.parametrize("name", ["kernel_height", "kernel_width", "stride_rows", "stride_columns"])
@pytest.mark.parametrize("value", [-1, 0, 2**31])
def test_sizes_are_checked(name, value):
    sizes = {"kernel_height": 3, "kernel_width": 3} | {name: value}
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        native_ops().tf_fast_rcnn_depthwise_conv_filter_grad(
            tf.zeros([1, 2, 2, 1]), tf.zeros([1, 2, 2, 1]), [0, 0], **sizes
        )


@pytest.mark.parametrize(
    "shapes", [((0, 8, 8, 3), (0, 8, 8, 3)), ((2, 8, 8, 0), (2, 8, 8, 0)), ((2, 8, 8, 3), (2, 0, 8, 3))]
)
def test_nothing_to_add(shapes):
    images, gradients = map(tf.ones, shapes)
    np.testing.assert_array_equal(filter_gradient(images, gradients, (1, 1)), np.zeros((3, 3, images.shape[3], 1)))


def test_a_second_derivative_is_an_error():
    images, kernel = tf.ones([1, 4, 4, 2]), tf.ones([3, 3, 2, 1])
    with tf.GradientTape() as outer:
        outer.watch(images)
        with tf.GradientTape() as inner:
            inner.watch(kernel)
            loss = tf.reduce_sum(depthwise_conv2d(images, kernel) ** 2)
        gradient = inner.gradient(loss, kernel)
    with pytest.raises((NotImplementedError, LookupError), match="second derivative"):
        outer.gradient(gradient, images)


# --- TensorFlow's gradient instead ------------------------------------------------------------------------------------


def check_tensorflow_is_used(images, kernel, monkeypatch):
    def unexpected(*arguments):
        raise AssertionError("the compiled op was used")

    monkeypatch.setattr(depthwise_conv, "_kernel_gradient", unexpected)
    expected_value = tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME")
    found = gradients_of(depthwise_conv2d, images, kernel, tf.ones_like(expected_value))
    np.testing.assert_array_equal(found[0], expected_value)
    assert found[2].shape == kernel.shape


def test_without_the_compiled_ops(monkeypatch):
    monkeypatch.setattr(depthwise_conv, "native_ops_available", lambda: False)
    check_tensorflow_is_used(tf.ones([1, 4, 5, 2]), tf.ones([3, 3, 2, 1]), monkeypatch)


def test_with_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [f"a {kind}"])
    check_tensorflow_is_used(tf.ones([1, 4, 5, 2]), tf.ones([3, 3, 2, 1]), monkeypatch)


@pytest.mark.parametrize(("dtype", "multiplier"), [("float64", 1), ("bfloat16", 1), ("float32", 2)])
def test_other_types_and_several_kernels_per_channel(dtype, multiplier, monkeypatch):
    images, kernel = tf.ones([1, 4, 5, 2], dtype), tf.ones([3, 3, 2, multiplier], dtype)
    check_tensorflow_is_used(images, kernel, monkeypatch)


def test_under_xla(monkeypatch):
    images, kernel = tf.random.stateless_normal([2, 9, 8, 5], (0, 1)), tf.random.stateless_normal([3, 3, 5, 1], (2, 3))
    used = []
    compiled_gradient = depthwise_conv._kernel_gradient
    monkeypatch.setattr(
        depthwise_conv, "_kernel_gradient", lambda *arguments: (used.append(True), compiled_gradient(*arguments))[1]
    )

    def gradient(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            total = tf.reduce_sum(tf.sin(depthwise_conv2d(images, kernel)))
        return tape.gradient(total, kernel)

    expected = tf.function(gradient)(images, kernel)
    assert used.pop()
    # Also in a function that a compiled function calls.
    inner = tf.function(gradient)
    for function in (gradient, lambda *arguments: inner(*arguments)):
        found = tf.function(function, jit_compile=True)(images, kernel)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not used


# --- in networks ------------------------------------------------------------------------------------------------------


class FasterDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    def call(self, inputs):
        return tf.nn.bias_add(depthwise_conv2d(inputs, self.kernel, self.strides, self.padding.upper()), self.bias)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_training_with_keras(run_eagerly):
    """Variables, a tape, an optimizer: the weights after some steps are those of Keras's layer."""
    assert native.native_ops_available()
    rng = np.random.default_rng(0)
    images, targets = rng.normal(size=(6, 9, 8, 5)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    trained = []
    for layer in (keras.layers.DepthwiseConv2D, FasterDepthwiseConv2D):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((None, None, 5)),
                keras.layers.Conv2D(5, 1),
                layer(3, 2, padding="same", activation=None),
                keras.layers.ReLU(6.0),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )
        model.compile("sgd", "mse", run_eagerly=run_eagerly, jit_compile=False)
        model.fit(images, targets, batch_size=2, epochs=3, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for found, expected in zip(*trained, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


RUN_FUSED = """
import tensorflow as tf
from tensorflow.python.eager import context
from tf_fast_rcnn.ops.depthwise_conv import depthwise_conv2d

images, kernel, bias = tf.ones([2, 9, 8, 32]), tf.Variable(tf.ones([3, 3, 32, 1])), tf.Variable(tf.ones([32]))


@tf.function
def train(images):
    with tf.GradientTape() as tape:
        scaled = images * 2.0
        tape.watch(scaled)
        loss = tf.reduce_sum(tf.nn.relu6(tf.nn.bias_add(depthwise_conv2d(scaled, kernel), bias)) ** 2)
    return tape.gradient(loss, [scaled, kernel, bias])


context.context().enable_run_metadata()
train(images)
for graph in context.context().export_run_metadata().partition_graphs:
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        print(node.op)
"""


def test_convolution_bias_and_relu_are_fused():
    printed = subprocess.run([sys.executable, "-c", RUN_FUSED], check=True, capture_output=True, text=True).stdout
    names = printed.split()
    assert "TfFastRcnn>DepthwiseConvFilterGrad" in names
    assert any(name.endswith("FusedDepthwiseConv2dNative") for name in names), names
    assert not {"BiasAdd", "Relu6", "IdentityN"} & set(names)


# --- the kernels alone ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_shapes_under_sanitizers(tmp_path):
    program = tmp_path / "depthwise_conv_fuzz"
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-std=c++17", "-O1", "-g", "-ffp-contract=off"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    kernels = [KERNELS / f"depthwise_conv/{name}.cc" for name in ("baseline", "avx2", "avx512", "dispatch")]
    sources = [CUSTOM_OPS / "test/depthwise_conv_fuzz.cc", *kernels, KERNELS / "instruction_set.cc"]
    subprocess.run([*compiler, *sanitizers, *sources, "-o", program], check=True)
    ran = subprocess.run([program, "1500"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all equal" in ran.stdout
