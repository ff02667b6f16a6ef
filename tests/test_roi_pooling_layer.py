"""RoIPooling as a layer: configuration, saving, mixed precision, training and graphs that run without this package."""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn import RoIPooling, native, roi_pool

IMPLEMENTATIONS = ["native", "portable"]
both_implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


def small_model(implementation):
    """A convolution, RoI pooling, one unit a RoI."""
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
    """Types of the ops in a graph and in the functions that it calls."""
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
    """Pixels 999 and 1001 are one number in bfloat16."""
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
    """TensorFlow Serving loads by session; the portable graph needs no library there."""
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
        native.find_library(pathlib.Path(native.__file__).parent, tf.__version__) if implementation == "native" else ""
    )
    subprocess.run([sys.executable, "-c", RUN_IN_A_SESSION, tmp_path, library], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), model(inputs), rtol=1e-5, atol=1e-6)


def test_loaded_saved_model_can_be_trained(tmp_path):
    """Saved functions keep no Python gradient: loading finds the gradients registered with the ops."""
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
