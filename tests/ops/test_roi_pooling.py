"""RoI pooling against a naive loop, ONNX Runtime's MaxRoiPool, OpenVINO and numeric gradients.

The native op is required: without it these tests fail, instead of passing with only one implementation tested.
"""

import math

import numpy as np
import onnx
import onnxruntime
import openvino.opset13
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_roi_pooling import naive_gradient, naive_roi_pool, naive_spans

from tf_fast_rcnn import InputError, RoIPooling, roi_pool
from tf_fast_rcnn.ops.native import native_ops

IMPLEMENTATIONS = ["native", "portable"]
DTYPES = ["float32", "float64", "bfloat16", "float16"]
both_implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def random_rois(rng, images, rois, height, width):
    """Whole and half pixels, some outside the image, some reversed."""
    low, high = [-height / 4, -width / 4] * 2, [1.25 * height, 1.25 * width] * 2
    return (rng.uniform(low, high, (images, rois, 4)).round() + rng.choice([0, 0.5], 4)).astype(np.float32)


def features_gradient(features, rois, pooled_gradient, **arguments):
    features = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = roi_pool(features, rois, **arguments)
    return tape.gradient(pooled, features, output_gradients=tf.cast(pooled_gradient, features.dtype)).numpy()


# --- forward ----------------------------------------------------------------------------------------------------------


@both_implementations
def test_hand_drawn_map(implementation):
    features = tf.reshape(tf.constant([[0, 1, 2], [9, 4, 5], [6, 7, 3]], tf.float32), [1, 3, 3, 1])
    rois = [[[0, 0, 2, 2], [1, 1, 2, 2], [0, 2, 0, 2], [5, 5, 9, 9]]]
    pooled = roi_pool(features, rois, (2, 2), 1.0, implementation)[0, ..., 0]
    # 3 rows in 2 bins: the middle row belongs to both.
    expected = [[[9, 5], [9, 7]], [[4, 5], [7, 3]], [[2, 2], [2, 2]], [[0, 0], [0, 0]]]
    np.testing.assert_array_equal(pooled, expected)


@both_implementations
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 37, 64])
def test_equals_the_naive_loop(implementation, dtype, channels):
    rng = np.random.default_rng(channels)
    features = tf.cast(rng.normal(size=(2, 9, 14, channels)), dtype)
    rois = random_rois(rng, 2, 12, 144, 224)
    pooled = roi_pool(features, rois, (3, 4), 1 / 16, implementation)
    expected, _ = naive_roi_pool(tf.cast(features, tf.float64).numpy(), rois, (3, 4), 1 / 16)
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(tf.cast(pooled, tf.float64), expected)


@both_implementations
@pytest.mark.parametrize(
    ("pixel", "cell"),
    [
        (8, 1),
        (24, 2),
        (40, 3),
        (np.nextafter(np.float32(8), np.float32(0)), 0),
        (-7.5, 0),
        (-8, None),
        (72, 5),
        (88, None),
    ],
)
def test_halves_round_away_from_zero(implementation, pixel, cell):
    """Python's round would map 40 / 16 = 2.5 to 2; floor(x + 0.5) in float32 maps the number just below 0.5 to 1."""
    features = tf.reshape(tf.range(1.0, 7.0), [1, 6, 1, 1])
    pooled = roi_pool(features, [[[pixel, 0, pixel, 0]]], (1, 1), 1 / 16, implementation)
    assert pooled.numpy().item() == (0 if cell is None else cell + 1)


@both_implementations
@pytest.mark.parametrize("height", [57, 114, 121, 228])
def test_bin_edges_are_the_float32_rule(implementation, height):
    """At these heights, integer arithmetic would give some bin a different last row."""
    features = np.arange(240, dtype=np.float32).reshape(1, 240, 1, 1)
    pooled = roi_pool(features, [[[0, 0, height - 1, 0]]], (7, 1), 1.0, implementation).numpy().ravel()
    last_rows = [end - 1 for _, end in naive_spans(0, height - 1, 1.0, 7, 240)]
    assert last_rows != [-(-(p + 1) * height // 7) - 1 for p in range(7)]
    np.testing.assert_array_equal(pooled, last_rows)


@both_implementations
def test_first_rows_of_all_heights(implementation):
    """A decreasing map shows where bins begin. Graph optimisers got 171 of these 400 heights wrong."""
    features = -np.arange(400, dtype=np.float32).reshape(1, 400, 1, 1)
    rois = np.array([[[0, 0, height - 1, 0] for height in range(1, 401)]], np.float32)
    pool = tf.function(lambda rois: roi_pool(features, rois, (7, 1), 1.0, implementation))
    expected, _ = naive_roi_pool(features, rois, (7, 1), 1.0)
    np.testing.assert_array_equal(pool(rois), expected)


@both_implementations
@pytest.mark.parametrize(
    "roi",
    [
        [-1e30, -1e30, 1e30, 1e30],
        [-np.inf, 0, np.inf, 31],
        [0, 0, 1e9, 31],
        [np.inf, np.inf, np.inf, np.inf],
        [31, 31, 0, 0],
        [31, 0, -np.inf, 31],
        [np.nan, 0, 31, 31],
        [0, 0, 31, np.nan],
        [3.4e38, 0, 3.4e38, 3.4e38],
    ],
    ids=str,
)
def test_any_number_is_a_coordinate(implementation, roi):
    features = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    rois = np.array([[roi]], np.float32)
    pooled = roi_pool(features, rois, (2, 3), 1.0, implementation)
    np.testing.assert_array_equal(pooled, naive_roi_pool(features, rois, (2, 3), 1.0)[0])


@both_implementations
def test_infinite_features_are_maxima_too(implementation):
    features = np.full((1, 4, 4, 2), -np.inf, np.float32)
    features[0, 1, 1, 1] = np.inf
    pooled = roi_pool(features, [[[0, 0, 3, 3]]], (1, 1), 1.0, implementation)
    np.testing.assert_array_equal(pooled.numpy().ravel(), [-np.inf, np.inf])


@both_implementations
@pytest.mark.parametrize("training", [False, True])
def test_no_rois(implementation, training):
    features, rois = tf.ones([2, 4, 4, 3]), tf.zeros([2, 0, 4])
    pooled = roi_pool(features, rois, (7, 7), 1.0, implementation, training)
    assert pooled.shape == (2, 0, 7, 7, 3)
    gradient = features_gradient(features, rois, pooled, spatial_scale=1.0, implementation=implementation)
    np.testing.assert_array_equal(gradient, np.zeros([2, 4, 4, 3]))


maps = st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 40))
coordinates = st.one_of(st.integers(-80, 400), st.floats(width=32), st.integers(-20, 100).map(lambda i: 4 * i + 2))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shape=maps, output_size=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_both_implementations_equal_the_naive_loop(data, shape, output_size):
    spatial_scale = data.draw(st.sampled_from([1 / 16, 1 / 4, 1.0, 0.3]))
    rois = data.draw(st.lists(st.tuples(*[coordinates] * 4), max_size=4))
    rois = np.broadcast_to(np.array(rois, np.float32).reshape(1, -1, 4), (shape[0], len(rois), 4))
    features = np.random.default_rng(data.draw(st.integers(0, 9))).integers(-9, 9, shape).astype(np.float32)
    expected, _ = naive_roi_pool(features, rois, output_size, spatial_scale)
    for implementation in IMPLEMENTATIONS:
        pooled = roi_pool(features, rois, output_size, spatial_scale, implementation)
        np.testing.assert_array_equal(pooled, expected, implementation)


def onnx_max_roi_pool(features, rois, output_size, spatial_scale):
    """ONNX Runtime's operator, which expects NCHW and [image, x1, y1, x2, y2]."""
    tensor = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node(
        "MaxRoiPool", ["features", "rois"], ["pooled"], pooled_shape=output_size, spatial_scale=spatial_scale
    )
    inputs = [tensor("features", 1, [None] * 4), tensor("rois", 1, [None, 5])]
    graph = onnx.helper.make_graph([node], "pool", inputs, [tensor("pooled", 1, [None] * 4)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.repeat(np.arange(rois.shape[0], dtype=np.float32), rois.shape[1])[:, None]
    rows = np.concatenate([images, rois.reshape(-1, 4)[:, [1, 0, 3, 2]]], axis=1)
    pooled = session.run(None, {"features": features.transpose(0, 3, 1, 2), "rois": rows})[0]
    return pooled.transpose(0, 2, 3, 1).reshape(*rois.shape[:2], *output_size, -1)


@both_implementations
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_onnx_runtime(implementation, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2, 38, 63, 16)).astype(np.float32)
    rois = random_rois(rng, 2, 200, 600, 1000)
    pooled = roi_pool(features, rois, (7, 7), 1 / 16, implementation).numpy()
    assert (pooled == 0).any()  # some bins are empty
    np.testing.assert_array_equal(pooled, onnx_max_roi_pool(features, rois, (7, 7), 1 / 16))


# --- graphs -----------------------------------------------------------------------------------------------------------

UNKNOWN = [tf.TensorSpec([None] * 4, tf.float32), tf.TensorSpec([None, None, 4], tf.float32)]


@both_implementations
def test_equals_openvino_but_for_some_sides(implementation):
    """It computes bins in integers, which yields different bins at sides of 57, 114, 121, ... cells."""
    heights = np.delete(np.arange(1, 130), [57 - 1, 114 - 1, 121 - 1])
    features = np.random.default_rng(0).normal(size=(1, 130, 3, 2)).astype(np.float32)
    corners = np.array([[0, 0, height - 1, 2] for height in heights], np.float32)
    pooled = roi_pool(features, corners[None], (7, 7), 1.0, implementation)[0]
    np.testing.assert_array_equal(pooled, openvino_roi_pool(features, corners))


def openvino_roi_pool(features, corners):
    """The same for one image at scale 1."""
    opset = openvino.opset13
    channels_first = np.ascontiguousarray(np.moveaxis(features, 3, 1))
    rows = np.insert(corners[:, [1, 0, 3, 2]], 0, 0, axis=1)  # image, x1, y1, x2, y2
    inputs = [opset.parameter(array.shape, np.float32) for array in (channels_first, rows)]
    model = openvino.Model([opset.roi_pooling(*inputs, [7, 7], 1.0, "max")], inputs)
    # By default it computes in bfloat16 if the CPU supports it.
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.moveaxis(compiled((channels_first, rows))[0], 1, 3)


@both_implementations
def test_one_graph_serves_all_shapes(implementation):
    pool = tf.function(lambda f, r: roi_pool(f, r, (7, 5), 1 / 16, implementation), input_signature=UNKNOWN)
    rng = np.random.default_rng(0)
    for shape, count in [((1, 38, 63, 8), 50), ((3, 5, 2, 40), 7), ((2, 1, 1, 1), 3), ((1, 130, 260, 1), 30)]:
        features = rng.normal(size=shape).astype(np.float32)
        rois = random_rois(rng, shape[0], count, 16 * shape[1], 16 * shape[2])
        np.testing.assert_array_equal(pool(features, rois), naive_roi_pool(features, rois, (7, 5), 1 / 16)[0])


def test_output_shape_is_known_where_the_inputs_are():
    for implementation in IMPLEMENTATIONS:
        pool = tf.function(lambda f, r, i=implementation: roi_pool(f, r, (7, 5), 1 / 16, i))
        specs = tf.TensorSpec([2, None, None, 8]), tf.TensorSpec([None, 3, 4])
        shape = pool.get_concrete_function(*specs).output_shapes
        assert shape.as_list()[1:] == [3, 7, 5, 8]


def test_portable_under_xla():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 38, 63, 4)).astype(np.float32)
    rois = random_rois(rng, 2, 40, 600, 1000)
    rois[1, 3, 2] = np.nan
    pool = tf.function(lambda f, r: roi_pool(f, r, (7, 7), 1 / 16, "portable"), jit_compile=True)
    np.testing.assert_array_equal(pool(features, rois), naive_roi_pool(features, rois, (7, 7), 1 / 16)[0])


def run_tf_lite(model, *inputs):
    interpreter = tf.lite.Interpreter(model_content=model)
    details = sorted(interpreter.get_input_details(), key=lambda detail: detail["index"])
    for detail, value in zip(details, inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail, value in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_portable_in_tf_lite_built_ins():
    pool = tf.function(lambda f, r: roi_pool(f, r, (7, 7), 1 / 16, "portable"), input_signature=UNKNOWN)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([pool.get_concrete_function()], pool)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    model = converter.convert()
    rng = np.random.default_rng(0)
    for height, width in [(38, 63), (5, 1)]:
        features = rng.normal(size=(2, height, width, 4)).astype(np.float32)
        rois = random_rois(rng, 2, 40, 16 * height, 16 * width)
        rois[1, 3, 2] = np.nan
        expected, _ = naive_roi_pool(features, rois, (7, 7), 1 / 16)
        np.testing.assert_array_equal(run_tf_lite(model, features, rois), expected)


# --- gradient ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("channels", [3, 70])
def test_native_gradient_equals_the_naive_one(training, channels):
    """Few distinct values cause ties; the first cell in row-major order receives the gradient."""
    rng = np.random.default_rng(0)
    features = rng.integers(0, 4, (2, 9, 14, channels)).astype(np.float64)
    rois = random_rois(rng, 2, 15, 144, 224)
    rois[1, 2, 0] = np.nan
    _, argmax = naive_roi_pool(features, rois, (3, 4), 1 / 16)
    upstream = rng.integers(-8, 8, argmax.shape).astype(np.float64)
    arguments = {"output_size": (3, 4), "spatial_scale": 1 / 16, "implementation": "native", "training": training}
    for dtype in DTYPES:
        gradient = features_gradient(tf.cast(features, dtype), rois, upstream, **arguments)
        np.testing.assert_array_equal(gradient.astype(np.float64), naive_gradient(features, argmax, upstream), dtype)


@both_implementations
def test_gradient_equals_central_differences(implementation):
    rng = np.random.default_rng(1)
    features = rng.permutation(np.arange(2.0 * 5 * 6 * 2)).reshape(2, 5, 6, 2)  # no two values within a step
    rois = random_rois(rng, 2, 4, 5, 6)
    theoretical, numeric = tf.test.compute_gradient(
        lambda f: roi_pool(f, rois, (2, 3), 1.0, implementation), [features], delta=1e-3
    )
    assert np.abs(numeric[0]).sum() > 0
    np.testing.assert_allclose(theoretical[0], numeric[0], atol=1e-9)


def test_portable_gradient_equals_native_where_maxima_are_single():
    rng = np.random.default_rng(2)
    features = rng.permutation(np.arange(2.0 * 9 * 14 * 5)).reshape(2, 9, 14, 5)
    rois = random_rois(rng, 2, 20, 144, 224)
    rois[0, 0, 1] = np.nan
    upstream = rng.integers(-8, 8, (2, 20, 7, 7, 5)).astype(np.float64)
    native, portable = (features_gradient(features, rois, upstream, implementation=i) for i in IMPLEMENTATIONS)
    np.testing.assert_array_equal(portable, native)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_many_gradients_of_16_bits_meet_in_one_cell(dtype):
    """A sum of ones in bfloat16 would stop at 256."""
    gradient = features_gradient(
        tf.ones([1, 1, 1, 3], dtype), tf.zeros([1, 1000, 4]), np.ones([1, 1000, 1, 1, 3]), output_size=(1, 1)
    )
    np.testing.assert_array_equal(gradient.astype(np.float32).ravel(), [1000, 1000, 1000])


def test_native_gradient_is_the_same_every_time():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(2, 20, 20, 96)).astype(np.float32)
    rois = random_rois(rng, 2, 100, 320, 320)
    upstream = rng.normal(size=(2, 100, 7, 7, 96)).astype(np.float32)
    first, *others = (features_gradient(features, rois, upstream, implementation="native") for _ in range(4))
    assert all(np.array_equal(first, other) for other in others)


# --- errors -----------------------------------------------------------------------------------------------------------

WRONG_SHAPES = {
    "features of rank 3": ([4, 4, 1], [1, 1, 4]),
    "rois of rank 2": ([1, 4, 4, 1], [1, 4]),
    "rois of five numbers": ([1, 4, 4, 1], [1, 1, 5]),
    "two images, RoIs of one": ([2, 4, 4, 1], [1, 1, 4]),
    "one image, RoIs of two": ([1, 4, 4, 1], [2, 1, 4]),
    "a map without rows": ([1, 0, 4, 1], [1, 1, 4]),
}


@both_implementations
@pytest.mark.parametrize(("features_shape", "rois_shape"), WRONG_SHAPES.values(), ids=WRONG_SHAPES)
@pytest.mark.parametrize("known", [True, False], ids=["eager", "graph"])
def test_wrong_shapes(implementation, features_shape, rois_shape, known):
    def pool(features, rois):
        return roi_pool(features, rois, (2, 2), 1.0, implementation)

    if not known:
        pool = tf.function(pool, input_signature=[tf.TensorSpec(None), tf.TensorSpec(None)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        pool(tf.ones(features_shape), tf.zeros(rois_shape))


@both_implementations
@pytest.mark.parametrize("arguments", [{"output_size": (-1, 7)}, {"output_size": (7, 0)}, {"spatial_scale": -1.0}])
def test_wrong_arguments(implementation, arguments):
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected"):
        roi_pool(tf.ones([1, 4, 4, 1]), tf.zeros([1, 1, 4]), implementation=implementation, **arguments)


@pytest.mark.parametrize("name", ["tf_fast_rcnn_roi_pool", "tf_fast_rcnn_roi_pool_with_argmax"])
@pytest.mark.parametrize(("height", "scale"), [(-1, 1.0), (0, 1.0), (1, -1.0), (1, math.nan), (1, math.inf)])
def test_the_ops_check_their_attributes(name, height, scale):
    op = getattr(native_ops(), name)
    with pytest.raises(tf.errors.InvalidArgumentError):
        op(tf.ones([1, 4, 4, 1]), tf.zeros([1, 1, 4]), output_height=height, output_width=1, spatial_scale=scale)


@pytest.mark.parametrize(
    ("pooled_shape", "argmax_shape", "rois_shape", "features_shape"),
    [
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 2], [1, 1, 4], [1, 4, 4, 1]),
        ([1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 4], [1, 4, 4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 2, 4], [1, 4, 4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [2, 1, 4], [1, 4, 4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 5], [1, 4, 4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 4], [1, 4, 4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 4], [2, 4, 4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 4], [1, 4, 4, 2]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 4], [1, 4, -4, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 4], [1, 2**16, 2**16, 1]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 4], [4, 4, 1]),
    ],
)
def test_the_gradient_op_checks_shapes(pooled_shape, argmax_shape, rois_shape, features_shape):
    with pytest.raises(tf.errors.InvalidArgumentError):
        native_ops().tf_fast_rcnn_roi_pool_grad(
            tf.ones(pooled_shape), tf.zeros(argmax_shape, tf.int32), tf.ones(rois_shape), features_shape, 1.0
        )


def test_the_gradient_op_leaves_out_cells_that_are_not_on_the_map():
    argmax = tf.reshape([-1, 0, 16, 2**31 - 1], [1, 4, 1, 1, 1])
    rois = tf.zeros([1, 4, 4])
    gradient = native_ops().tf_fast_rcnn_roi_pool_grad(tf.ones([1, 4, 1, 1, 1]), argmax, rois, [1, 4, 4, 1], 1.0)
    np.testing.assert_array_equal(gradient.numpy().ravel(), [1] + [0] * 15)


def test_second_gradients_are_refused():
    features, rois = tf.Variable(tf.ones([1, 4, 4, 1])), tf.constant([[[0.0, 0, 3, 3]]])
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
        total = tf.reduce_sum(roi_pool(features, rois, (2, 2), 1.0, "native") ** 2)
        gradient = inner.gradient(total, features)
    with pytest.raises(NotImplementedError, match=r"no second derivative: .* native"):
        outer.gradient(gradient, features)


def test_unknown_implementation():
    with pytest.raises(InputError, match="found 'cuda'; expected one of auto, native, portable"):
        RoIPooling(implementation="cuda")


def test_rois_of_a_half_type_are_refused():
    with pytest.raises(ValueError, match="bfloat16"):
        roi_pool(tf.ones([1, 4, 4, 1]), tf.zeros([1, 1, 4], tf.bfloat16))
