"""RoIPooling as a layer: configuration, saving, mixed precision, training and graphs that run without this package."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn import InputError, RoIPooling, roi_pool
from tf_fast_rcnn.ops import native

IMPLEMENTATIONS = ["native", "portable"]
both_implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def small_model(implementation):
    """A convolution, RoI pooling, one unit per RoI."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3), name="images")
    rois = keras.Input((None, 4), name="rois")
    features = keras.layers.Conv2D(4, 3, padding="same")(images)
    pooled = RoIPooling((2, 2), 1 / 2, implementation, name="roi_pooling")(features, rois)
    scores = keras.layers.Dense(1, dtype="float32")(keras.layers.Reshape((-1, 16))(pooled))
    return keras.Model({"images": images, "rois": rois}, scores)


def some_inputs(images=2, rois=5):
    rng = np.random.default_rng(0)
    return {
        "images": rng.normal(size=(images, 8, 9, 3)).astype(np.float32),
        "rois": rng.uniform(0, 18, (images, rois, 4)).astype(np.float32),
    }


def ops_of(graph):
    """The op types in a graph and in the functions that it calls."""
    functions = graph.as_graph_def().library.function
    return {op.type for op in graph.get_operations()} | {node.op for f in functions for node in f.node_def}


def test_configuration_round_trip():
    layer = RoIPooling((3, 4), 1 / 8, "portable", name="pool")
    copy = RoIPooling.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.output_size, copy.spatial_scale, copy.implementation) == ((3, 4), 1 / 8, "portable")


def test_shape_and_values_are_roi_pools():
    inputs = some_inputs()
    layer = RoIPooling((3, 4), 1 / 2)
    pooled = layer(inputs["images"], inputs["rois"])
    assert pooled.shape == layer.compute_output_shape((2, 8, 9, 3), (2, 5, 4)) == (2, 5, 3, 4, 3)
    np.testing.assert_array_equal(pooled, roi_pool(inputs["images"], inputs["rois"], (3, 4), 1 / 2))


@pytest.mark.parametrize("implementation", ["auto", "native", "portable"])
def test_model_survives_saving(tmp_path, implementation):
    model, inputs = small_model(implementation), some_inputs()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("roi_pooling").implementation == implementation
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


@both_implementations
@pytest.mark.parametrize(("policy", "dtype"), [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
def test_mixed_precision_keeps_rois_in_float32(implementation, policy, dtype):
    """Pixels 999 and 1001 are the same number in bfloat16."""
    layer = RoIPooling((1, 1), 1.0, implementation, dtype=policy)
    features = tf.cast(tf.reshape(tf.range(1002.0) >= 1000.0, [1, 1002, 1, 1]), dtype)
    pooled = layer(features, tf.constant([[[999.0, 0, 999, 0], [1001, 0, 1001, 0]]]))
    assert pooled.dtype == dtype
    np.testing.assert_array_equal(tf.cast(pooled, "float32").numpy().ravel(), [0, 1])


def test_symbolic_type_follows_the_features():
    features, rois = keras.Input((8, 9, 3), dtype="float32"), keras.Input((5, 4), dtype="float32")
    assert RoIPooling(dtype="mixed_bfloat16")(features, rois).dtype == "float32"


def test_xla_only_where_it_can_compile():
    assert RoIPooling(implementation="portable").supports_jit
    assert not RoIPooling(implementation="native").supports_jit


@both_implementations
def test_fit_lowers_the_loss(implementation):
    model = small_model(implementation)
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    history = model.fit(some_inputs(), np.ones([2, 5, 1]), epochs=8, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


def test_both_implementations_train_alike():
    weights = []
    for implementation in IMPLEMENTATIONS:
        model = small_model(implementation)
        model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
        model.fit(some_inputs(), np.ones([2, 5, 1]), epochs=3, verbose=0)
        weights.append(model.get_weights())
    for with_native, with_portable in zip(*weights, strict=True):
        np.testing.assert_allclose(with_native, with_portable, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_only_training_computes_the_argmax(training):
    model = small_model("native")
    call = tf.function(lambda inputs: model(inputs, training=training)).get_concrete_function(some_inputs())
    with_argmax = "TfFastRcnn>RoiPoolWithArgmax" in ops_of(call.graph)
    without = "TfFastRcnn>RoiPool" in ops_of(call.graph)
    assert (with_argmax, without) == (training, not training)


# --- spatial pyramid pooling ------------------------------------------------------------------------------------------


def naive_pyramid(features, rois, grids):
    """Maxima `[B, R, bins, C]` at scale 1, level after level, each in the order of its bins."""
    pooled = []
    for rows, columns in grids:
        for p, q in np.ndindex(rows, columns):
            values = np.zeros((*rois.shape[:2], features.shape[-1]), np.float32)
            for b, r in np.ndindex(rois.shape[:2]):
                top, left, bottom, right = rois[b, r].astype(int)
                height, width = bottom - top + 1, right - left + 1
                y = slice(top + p * height // rows, top - (-(p + 1) * height // rows))
                x = slice(left + q * width // columns, left - (-(q + 1) * width // columns))
                values[b, r] = features[b, y, x].max(axis=(0, 1))
            pooled.append(values)
    return np.stack(pooled, axis=2)


def cells_and_rois(rois=5):
    """RoIs with whole corners within a map of 9x11 cells."""
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, [9, 11], (2, 2, rois, 2))
    corners = np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)
    return rng.normal(size=(2, 9, 11, 3)).astype(np.float32), corners.astype(np.float32)


@both_implementations
@pytest.mark.parametrize(
    ("output_size", "grids"),
    [
        ((1, 2, 3, 6), [(1, 1), (2, 2), (3, 3), (6, 6)]),
        ([[2, 3], [4, 1]], [(2, 3), (4, 1)]),
        ([(1, 2), 3], [(1, 2), (3, 3)]),
        (((3, 2),), [(3, 2)]),
    ],
    ids=str,
)
def test_a_pyramid_equals_the_naive_loop(implementation, output_size, grids):
    features, rois = cells_and_rois()
    layer = RoIPooling(output_size, 1.0, implementation)
    pooled = layer(features, rois)
    np.testing.assert_array_equal(pooled, naive_pyramid(features, rois, grids))
    assert pooled.shape == layer.compute_output_shape(features.shape, rois.shape)
    assert RoIPooling.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer(features, rois[:, :0]).shape == (2, 0, sum(p * q for p, q in grids), 3)


@pytest.mark.parametrize(
    ("output_size", "shape"), [((3, 4), (3, 4)), (3, (3, 3)), ((3,), (3, 3)), (np.int64(2), (2, 2)), ([2, 2], (2, 2))]
)
def test_one_number_is_a_square_and_two_are_rows_and_columns(output_size, shape):
    features, rois = cells_and_rois()
    layer = RoIPooling(output_size, 1.0)
    np.testing.assert_array_equal(layer(features, rois), roi_pool(features, rois, shape, 1.0))


@both_implementations
def test_a_pyramid_survives_saving_and_is_trained(tmp_path, implementation):
    images, rois = keras.Input((None, None, 3), name="images"), keras.Input((None, 4), name="rois")
    features = keras.layers.Conv2D(4, 3, padding="same", name="conv")(images)
    pooled = RoIPooling((1, 2, 3), 1 / 2, implementation)(features, rois)
    scores = keras.layers.Dense(1)(keras.layers.Reshape((-1, 14 * 4))(pooled))
    model, inputs = keras.Model({"images": images, "rois": rois}, scores), some_inputs()
    before = model.get_layer("conv").get_weights()[0]
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="mse")
    model.fit(inputs, np.ones([2, 5, 1]), epochs=1, verbose=0)
    assert not np.array_equal(model.get_layer("conv").get_weights()[0], before)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(inputs), model(inputs))


@pytest.mark.parametrize("output_size", [(), 0, (7, 0), (1, 2, 0), 2.5, (7.0, 7.0), "7", None, ((1, 2, 3),), [[[1]]]])
def test_what_is_no_output_size_is_an_input_error(output_size):
    with pytest.raises(InputError, match=r"^output_size: found .*; expected one number \(a square\), two"):
        RoIPooling(output_size)


RUN_IN_A_SESSION = """
import sys
import numpy as np
import tensorflow as tf
if sys.argv[2]:
    tf.load_op_library(sys.argv[2])
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    signature = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1]).signature_def["serving_default"]
    inputs = np.load(sys.argv[1] + "/inputs.npz")
    feed = {signature.inputs[name].name: inputs[name] for name in inputs}
    np.save(sys.argv[1] + "/output.npy", session.run(signature.outputs["output"].name, feed))
"""


@both_implementations
def test_session_without_this_package_runs_a_saved_model(tmp_path, implementation):
    """TensorFlow Serving loads models through a session, where the portable graph needs no library."""
    model, inputs = small_model(implementation), some_inputs()
    module = tf.Module()
    module.variables_of_the_model = [variable.value for variable in model.variables]
    module.call = tf.function(
        lambda images, rois: {"output": model({"images": images, "rois": rois})},
        input_signature=[
            tf.TensorSpec([None, None, None, 3], name="images"),
            tf.TensorSpec([None, None, 4], name="rois"),
        ],
    )
    tf.saved_model.save(module, tmp_path, signatures=module.call)
    np.savez(tmp_path / "inputs.npz", **inputs)
    library = (
        native.find_library(pathlib.Path(native.__file__).parents[1], tf.__version__)
        if implementation == "native"
        else ""
    )
    subprocess.run([sys.executable, "-c", RUN_IN_A_SESSION, tmp_path, library], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), model(inputs), rtol=1e-5, atol=1e-6)


def test_loaded_saved_model_can_be_trained(tmp_path):
    """Saved functions do not contain Python gradients: after loading, the registered gradients of the ops are used."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    module.call = tf.function(
        lambda features, rois: roi_pool(module.weight * features, rois, (2, 2), 1.0, "native"),
        input_signature=[tf.TensorSpec([None, None, None, 1]), tf.TensorSpec([None, None, 4])],
    )
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    features = tf.reshape(tf.range(16.0), [1, 4, 4, 1])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loaded.call(features, tf.constant([[[0.0, 0, 3, 3]]])))
    assert tape.gradient(total, loaded.weight).numpy() == 5 + 7 + 13 + 15
