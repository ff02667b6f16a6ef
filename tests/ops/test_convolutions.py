"""depthwise_conv2d and pointwise_conv2d against naive loops and TensorFlow; the compiled ops also under sanitizers."""

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

from tf_fast_rcnn.ops import convolutions, native
from tf_fast_rcnn.ops.convolutions import depthwise_conv2d, pointwise_conv2d
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


def naive_convolution(images, kernel, stride, above, left, outputs):
    """The sums [N, OH, OW, C], one tap of one output at a time."""
    _, height, width, _ = images.shape
    result = np.zeros((images.shape[0], *outputs, images.shape[3]))
    for p, q in np.ndindex(*outputs):
        for i, j in np.ndindex(kernel.shape[:2]):
            y, x = p * stride + i - above, q * stride + j - left
            if 0 <= y < height and 0 <= x < width:
                result[:, p, q] += images[:, y, x] * kernel[i, j, :, 0]
    return result


def naive_images_gradient(gradients, kernel, stride, above, left, size):
    """[N, H, W, C]: each output gives its gradient to the pixels of its window."""
    result = np.zeros((gradients.shape[0], *size, gradients.shape[3]))
    for p, q in np.ndindex(gradients.shape[1:3]):
        for i, j in np.ndindex(kernel.shape[:2]):
            y, x = p * stride + i - above, q * stride + j - left
            if 0 <= y < size[0] and 0 <= x < size[1]:
                result[:, y, x] += gradients[:, p, q] * kernel[i, j, :, 0]
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


def gradients_of(convolve, inputs, weights):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        convolved = convolve(*inputs)
        loss = tf.reduce_sum(convolved * weights)
    return [convolved, *tape.gradient(loss, inputs)]


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
def test_equals_naive_loops(images, height, width, channels, kernel, stride, padding, seed):
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
    weights, bias = whole_numbers(rng, *kernel, channels, 1), whole_numbers(rng, channels)
    found = filter_gradient(features, gradients, (above, left), kernel, (stride, stride))
    expected = naive_kernel_gradient(features, gradients, kernel, stride, above, left)
    np.testing.assert_array_equal(found, expected)
    where = {"stride_rows": stride, "stride_columns": stride, "padding": padding}
    sums = naive_convolution(features, weights, stride, above, left, (rows, columns)) + bias
    for activation, limited in (("linear", sums), ("relu", sums.clip(0)), ("relu6", sums.clip(0, 6))):
        found = native_ops().tf_fast_rcnn_depthwise_conv(features, weights, bias, activation=activation, **where)
        np.testing.assert_array_equal(found, limited)
    found = native_ops().tf_fast_rcnn_depthwise_conv_input_grad(features.shape, weights, gradients, **where)
    np.testing.assert_array_equal(
        found, naive_images_gradient(gradients, weights, stride, above, left, (height, width))
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("known_size", [True, False])
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
def test_equals_tensorflow(padding, stride, size, known_size, activation):
    """In a graph, with and without static sizes of the images, and eagerly."""
    rng = np.random.default_rng(size)
    shapes = [2, 13, 18, 40], [size, size, 40, 1], [40]
    inputs = [tf.constant(whole_numbers(rng, *shape)) for shape in shapes]
    function = {"linear": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[activation]

    def convolve(images, kernel, bias):
        return depthwise_conv2d(images, kernel, bias, (stride, stride), padding, activation)

    def tensorflow(images, kernel, bias):
        return function(tf.nn.bias_add(tf.nn.depthwise_conv2d(images, kernel, [1, stride, stride, 1], padding), bias))

    weights = tf.constant(whole_numbers(rng, *tensorflow(*inputs).shape))
    expected = gradients_of(tensorflow, inputs, weights)
    if not known_size:
        shapes = [None, None, None, 40], *shapes[1:]
    in_graph = tf.function(
        lambda *inputs: gradients_of(convolve, inputs, weights),
        input_signature=[tf.TensorSpec(each) for each in shapes],
    )
    for found in (gradients_of(convolve, inputs, weights), in_graph(*inputs)):
        for value, expected_value in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, expected_value)
    graph = in_graph.get_concrete_function().graph
    names = {operation.type for operation in graph.get_operations()}
    assert {f"TfFastRcnn>DepthwiseConv{part}" for part in ("", "InputGrad", "FilterGrad")} <= names
    assert not {name for name in names if name.startswith("DepthwiseConv2dNative")}
    if known_size:
        assert graph.structured_outputs[0].shape == expected[0].shape


def test_rows_and_columns_may_differ():
    """TensorFlow's convolution cannot have two strides, but the op can."""
    rng = np.random.default_rng(0)
    images, gradients = whole_numbers(rng, 2, 9, 12, 20), whole_numbers(rng, 2, 4, 10, 20)
    found = filter_gradient(images, gradients, (2, 1), (5, 3), (2, 1))
    # Every second row of the gradient for stride 1 is 0.
    spread = np.zeros((2, 7, 10, 20), np.float32)
    spread[:, ::2] = gradients
    np.testing.assert_array_equal(found, naive_kernel_gradient(images, spread, (5, 3), 1, 2, 1))


# Many parts of rows and of channels. Random numbers, whose sums depend on the order. Prints a line for the kernel
# gradient and one for the convolution and its images' gradient.
RUN_ONCE = """
import sys
import numpy as np
import tensorflow as tf
from tf_fast_rcnn.ops.native import native_ops

tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
rng, lines, ops = np.random.default_rng(0), [[], []], native_ops()
for size, channels in [(3, 600), (5, 41), (4, 300)]:
    images, gradients = (rng.normal(size=(3, 40, 30, channels)).astype(np.float32) for _ in range(2))
    lines[0].append(ops.tf_fast_rcnn_depthwise_conv_filter_grad(
        images, gradients, [1, 1], kernel_height=size, kernel_width=size
    ))
    kernel, bias = rng.normal(size=(size, size, channels, 1)), rng.normal(size=channels)
    for stride in (1, 2):
        where = {"stride_rows": stride, "stride_columns": stride}
        output = ops.tf_fast_rcnn_depthwise_conv(images, kernel, bias, **where)
        lines[1] += output, ops.tf_fast_rcnn_depthwise_conv_input_grad(images.shape, kernel, output, **where)
for line in lines:
    print(b"".join(tensor.numpy().tobytes() for tensor in line).hex())
"""


def run_once(threads, level):
    command = [sys.executable, "-c", RUN_ONCE, str(threads)]
    environment = os.environ | {"TF_FAST_RCNN_CPU": level}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_the_same_bits_for_any_threads(level):
    expected = run_once(1, level)
    assert [len(line) > 1000 for line in expected] == [True, True]
    assert run_once(4, level) == expected


def test_the_kernel_gradient_has_the_same_bits_for_any_instruction_set():
    expected = run_once(1, "avx512")[0]
    assert run_once(1, "avx2")[0] == expected
    assert run_once(1, "baseline")[0] == expected


@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
def test_nan_stays_nan(activation):
    images = np.ones((1, 1, 20, 20), np.float32)
    images[0, 0, 5] = np.nan
    found = depthwise_conv2d(images, tf.ones([1, 3, 20, 1]), tf.zeros([20]), activation=activation)
    np.testing.assert_array_equal(np.isnan(found[0, 0, :, 0]), [4 <= x <= 6 for x in range(20)])
    assert np.isnan(tf.nn.relu6(np.nan))


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


@pytest.mark.parametrize(
    ("images", "kernel", "bias", "message"),
    [
        ((2, 8, 8), (3, 3, 8, 1), (8,), "images: shape is .2,8,8.; expected .N, H, W, C."),
        ((2, 8, 8, 3), (3, 3, 3), (3,), "kernel: shape is .3,3,3.; expected .KH, KW, 3, 1."),
        ((2, 8, 8, 3), (3, 3, 4, 1), (3,), "kernel: shape is .3,3,4,1."),
        ((2, 8, 8, 3), (3, 3, 3, 2), (3,), "kernel: shape is .3,3,3,2."),
        ((2, 8, 8, 3), (0, 3, 3, 1), (3,), "kernel: shape is .0,3,3,1."),
        ((2, 8, 8, 3), (3, 3, 3, 1), (4,), "bias: shape is .4.; expected .3."),
        ((2, 8, 8, 3), (3, 3, 3, 1), (3, 1), "bias: shape is .3,1.; expected .3."),
    ],
)
def test_errors_of_the_convolution(images, kernel, bias, message):
    signature = [tf.TensorSpec(None)] * 3
    convolve = tf.function(native_ops().tf_fast_rcnn_depthwise_conv, input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        convolve(*map(tf.zeros, (images, kernel, bias)))


@pytest.mark.parametrize(
    ("images_shape", "kernel", "gradients", "message"),
    [
        ([[2, 8, 8, 3]], (3, 3, 3, 1), (2, 8, 8, 3), "images_shape: shape is .1,4.; expected .4."),
        ([2, 8, 8], (3, 3, 3, 1), (2, 8, 8, 3), "images: shape is .2,8,8."),
        ([2, 8, 8, -3], (3, 3, 3, 1), (2, 8, 8, 3), "must be >= 0"),
        ([2, 8, 8, 3], (3, 3, 2, 1), (2, 8, 8, 3), "kernel: shape is .3,3,2,1."),
        ([2, 8, 8, 3], (3, 3, 3, 1), (2, 8, 7, 3), "gradients: shape is .2,8,7,3.; expected .2,8,8,3."),
        ([2, 8, 8, 3], (3, 3, 3, 1), (2, 8, 8), "gradients: shape is .2,8,8.; expected .2,8,8,3."),
    ],
)
def test_errors_of_the_input_gradient(images_shape, kernel, gradients, message):
    signature = [tf.TensorSpec(None, tf.int32), tf.TensorSpec(None), tf.TensorSpec(None)]
    gradient = tf.function(native_ops().tf_fast_rcnn_depthwise_conv_input_grad, input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        gradient(tf.constant(images_shape), tf.zeros(kernel), tf.zeros(gradients))


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


@pytest.mark.parametrize("of", ["images", "kernel"])
def test_a_second_derivative_is_an_error(of):
    inputs = {"images": tf.ones([1, 4, 4, 2]), "kernel": tf.ones([3, 3, 2, 1]), "bias": tf.ones([2])}
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            loss = tf.reduce_sum(depthwise_conv2d(**inputs) ** 2)
        gradient = inner.gradient(loss, inputs[of])
    with pytest.raises((NotImplementedError, LookupError), match="second derivative"):
        outer.gradient(gradient, inputs["kernel"])


# --- 1x1 convolutions -------------------------------------------------------------------------------------------------


def pointwise_by_tensorflow(activation):
    function = {"linear": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[activation]
    return lambda images, kernel, bias: function(tf.nn.bias_add(tf.nn.conv2d(images, kernel, 1, "SAME"), bias))


@pytest.mark.parametrize("sizes", [[None, None, None, 5], [None, 7, 6, 5], [2, 7, 6, None]])
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
def test_pointwise_equals_tensorflow(sizes, activation):
    rng = np.random.default_rng(0)
    inputs = [tf.constant(whole_numbers(rng, *shape)) for shape in ((2, 7, 6, 5), (1, 1, 5, 4), (4,))]
    weights = whole_numbers(rng, 2, 7, 6, 4)
    expected = gradients_of(pointwise_by_tensorflow(activation), inputs, weights)

    def convolve(*inputs):
        return pointwise_conv2d(*inputs, activation=activation)

    signature = [tf.TensorSpec(sizes), tf.TensorSpec([1, 1, 5, 4]), tf.TensorSpec([4])]
    in_graph = tf.function(lambda *inputs: gradients_of(convolve, inputs, weights), input_signature=signature)
    for found in (gradients_of(convolve, inputs, weights), in_graph(*inputs)):
        for value, expected_value in zip(found, expected, strict=True):
            np.testing.assert_array_equal(value, expected_value)
    graph = in_graph.get_concrete_function().graph
    assert not {operation.type for operation in graph.get_operations() if operation.type.startswith("Conv2D")}
    shape = tf.function(convolve, input_signature=signature).get_concrete_function().output_shapes
    assert shape.as_list() == [*sizes[:3], 4]


def test_pointwise_without_images():
    found = pointwise_conv2d(tf.ones([0, 7, 6, 5]), tf.ones([1, 1, 5, 4]), tf.ones([4]))
    assert found.shape == [0, 7, 6, 4]


def test_pointwise_with_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [f"a {kind}"])
    inputs = tf.ones([1, 4, 4, 2]), tf.ones([1, 1, 2, 3]), tf.constant([0.5, 4, 5])
    function = tf.function(lambda *inputs: pointwise_conv2d(*inputs, activation="relu6"))
    assert "Conv2D" in {each.type for each in function.get_concrete_function(*inputs).graph.get_operations()}
    np.testing.assert_array_equal(function(*inputs), np.broadcast_to([2.5, 6, 6], (1, 4, 4, 3)))


# --- TensorFlow's gradient instead ------------------------------------------------------------------------------------


def check_tensorflow_is_used(images, kernel, bias, activation="linear"):
    signature = [tf.TensorSpec(each.shape, each.dtype) for each in (images, kernel, bias)]

    def convolve(*inputs):
        return depthwise_conv2d(*inputs, activation=activation)

    def tensorflow(images, kernel, bias):
        sums = tf.nn.bias_add(tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME"), bias)
        return tf.nn.relu6(sums) if activation == "relu6" else sums

    graph = tf.function(lambda *inputs: gradients_of(convolve, inputs, 1.0), input_signature=signature)
    names = {operation.type for operation in graph.get_concrete_function().graph.get_operations()}
    assert not {name for name in names if name.startswith("TfFastRcnn")}
    for found, expected in zip(
        graph(images, kernel, bias), gradients_of(tensorflow, [images, kernel, bias], 1.0), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("activation", ["linear", "relu6"])
def test_without_the_compiled_ops(activation, monkeypatch):
    monkeypatch.setattr(convolutions, "native_ops_available", lambda: False)
    check_tensorflow_is_used(tf.ones([1, 4, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([2]), activation)


def test_with_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [f"a {kind}"])
    check_tensorflow_is_used(tf.ones([1, 4, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([2]))


@pytest.mark.parametrize(("dtype", "multiplier"), [("float64", 1), ("bfloat16", 1), ("float32", 2)])
def test_other_types_and_several_kernels_per_channel(dtype, multiplier):
    check_tensorflow_is_used(
        tf.ones([1, 4, 5, 2], dtype), tf.ones([3, 3, 2, multiplier], dtype), tf.ones([2 * multiplier], dtype)
    )


def test_under_xla():
    inputs = [tf.random.stateless_normal(shape, (0, 1)) for shape in ([2, 9, 8, 5], [3, 3, 5, 1], [5])]
    pointwise = tf.random.stateless_normal([1, 1, 5, 4], (2, 3))

    def gradient(*inputs):
        return gradients_of(
            lambda *inputs: pointwise_conv2d(tf.sin(depthwise_conv2d(*inputs)), pointwise, tf.zeros([4])), inputs, 1.0
        )

    expected = tf.function(gradient)(*inputs)
    # Also in a function that a compiled function calls.
    inner = tf.function(gradient)
    for function in (gradient, lambda *inputs: inner(*inputs)):
        for found, value in zip(tf.function(function, jit_compile=True)(*inputs), expected, strict=True):
            np.testing.assert_allclose(found, value, atol=1e-4)


# --- in networks ------------------------------------------------------------------------------------------------------


class FasterDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    def call(self, inputs):
        return depthwise_conv2d(inputs, self.kernel, self.bias, self.strides, self.padding.upper(), "relu6")


class FasterPointwiseConv2D(keras.layers.Conv2D):
    def call(self, inputs):
        return pointwise_conv2d(inputs, self.kernel, self.bias)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_training_with_keras(run_eagerly):
    """Variables, a tape, an optimizer: the weights after some steps are those of Keras's layer."""
    assert native.native_ops_available()
    rng = np.random.default_rng(0)
    images, targets = rng.normal(size=(6, 9, 8, 5)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    trained = []
    for pointwise, depthwise in (
        (keras.layers.Conv2D, keras.layers.DepthwiseConv2D),
        (FasterPointwiseConv2D, FasterDepthwiseConv2D),
    ):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((None, None, 5)),
                pointwise(5, 1),
                depthwise(3, 2, padding="same"),
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
from tf_fast_rcnn.ops.convolutions import pointwise_conv2d

images, kernel, bias = tf.ones([2, 9, 8, 32]), tf.Variable(tf.ones([1, 1, 32, 8])), tf.Variable(tf.ones([8]))


@tf.function
def train(images):
    with tf.GradientTape() as tape:
        scaled = images * 2.0
        tape.watch(scaled)
        loss = tf.reduce_sum(pointwise_conv2d(scaled, kernel, bias, "relu6") ** 2)
    return tape.gradient(loss, [scaled, kernel, bias])


context.context().enable_run_metadata()
train(images)
for graph in context.context().export_run_metadata().partition_graphs:
    for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
        print(node.op)
"""


@pytest.mark.parametrize("onednn", ["0", "1"])
def test_pointwise_convolution_bias_and_relu_are_fused(onednn):
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": onednn}
    command = [sys.executable, "-c", RUN_FUSED]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    names = printed.split()
    assert any(name.endswith("FusedMatMul") for name in names), names
    assert not {"BiasAdd", "Relu6"} & set(names)


# --- the kernels alone ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_shapes_under_sanitizers(tmp_path):
    program = tmp_path / "depthwise_conv_fuzz"
    compiler = [*shlex.split(os.environ.get("CXX", "g++")), "-std=c++17", "-O1", "-g", "-ffp-contract=off"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    kernels = [
        KERNELS / f"depthwise_conv/{name}.cc" for name in ("baseline", "avx2", "avx512", "dispatch", "convolution")
    ]
    sources = [CUSTOM_OPS / "test/depthwise_conv_fuzz.cc", *kernels, KERNELS / "instruction_set.cc"]
    subprocess.run([*compiler, *sanitizers, *sources, "-o", program], check=True)
    ran = subprocess.run([program, "1500"], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all equal" in ran.stdout
