"""Mixed precision: which layers compute in a half type, and that Keras's global policy is not changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import multi_task_loss, sgd
from tf_fast_rcnn.models.losses import BoxLoss, ClassLoss
from tf_fast_rcnn.models.pretrained import PretrainedNetwork
from tf_fast_rcnn.training.precision import in_precision, set_precision
from tf_fast_rcnn.training.settings import with_changes

HALF_TYPES = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}


def detector():
    """With preprocessing before and inside the network, and fully connected layers with dropout."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 127.5, -1.0, name="rescaling"),
            layers.Conv2D(4, 3, 2, "same", name="conv1"),
            layers.BatchNormalization(name="normalization"),
            layers.Conv2D(4, 3, 2, "same", name="conv2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ],
        name="network",
    )
    own = layers.Rescaling(1.0, name="preprocessing")
    return frcnn.fast_rcnn(network, 2, preprocessing=own, stride=4, roi_output_size=(2, 2), fc_units=(6,), weights=None)


def mini_batch():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 32, (2, 8, 2, 2)), axis=2).reshape(2, 8, 4)
    labels = rng.integers(0, 3, (2, 8))
    targets = np.concatenate([labels[..., None], rng.normal(size=(2, 8, 4))], axis=-1)
    inputs = {"images": rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32), "rois": corners.astype(np.float32)}
    return inputs, {"class_logits": labels.astype(np.int32), "box_deltas": targets.astype(np.float32)}


def types_of_outputs(model, inputs, monkeypatch):
    """Output dtype by layer name."""
    found = {}
    call = keras.layers.Layer.__call__

    def noted(layer, *args, **kwargs):
        result = call(layer, *args, **kwargs)
        found[layer.name] = {keras.backend.standardize_dtype(each.dtype) for each in keras.tree.flatten(result)}
        return result

    with monkeypatch.context() as context:
        context.setattr(keras.layers.Layer, "__call__", noted)
        # Keras runs each layer on its own.
        context.delattr(PretrainedNetwork, "call")
        model(inputs, training=True)
    return found


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_what_computes_in_the_half_type(monkeypatch, dtype):
    model = detector()
    set_precision(model, dtype)
    found = types_of_outputs(model, mini_batch()[0], monkeypatch)
    half = ["conv1", "conv2", "roi_pooling_4", "roi_vectors", "fc6", "fc6_dropout"]
    whole = [
        "rescaling",
        "preprocessing",
        "normalization",
        "roi_corners",
        "class_logits",
        "box_regression",
        "box_by_class",
        "box_deltas",
    ]
    assert {name: found[name] for name in half} == {name: {HALF_TYPES[dtype]} for name in half}
    assert {name: found[name] for name in whole} == {name: {"float32"} for name in whole}
    assert {variable.dtype for variable in model.weights} == {"float32"}


def test_a_gpu_computes_all_layers_in_the_half_type(monkeypatch):
    gpus = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus)
    model = detector()
    set_precision(model, "mixed_bfloat16")
    assert types_of_outputs(model, mini_batch()[0], monkeypatch)["normalization"] == {"bfloat16"}


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_losses_and_their_targets_are_float32(monkeypatch, dtype):
    """Within `fit`, where Keras passes the outputs of the model to the losses."""
    types = []

    def noted(kind):
        call = kind.call

        def noting(self, targets, outputs):
            result = call(self, targets, outputs)
            types.extend(tensor.dtype for tensor in (targets, outputs, result))
            return result

        monkeypatch.setattr(kind, "call", noting)

    noted(ClassLoss)
    noted(BoxLoss)
    model = detector()
    set_precision(model, dtype)
    model.compile(optimizer=sgd(0.01), loss=multi_task_loss(model), jit_compile=False)
    model.train_on_batch(*mini_batch())
    # The class labels may be integers.
    assert set(types) <= {tf.float32, tf.int32}
    assert types.count(tf.float32) >= 5


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_gradients_are_those_of_float32_to_the_half_types_accuracy(dtype):
    inputs, targets = mini_batch()

    def gradients(precision):
        model = detector()
        set_precision(model, precision)
        losses = multi_task_loss(model)
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=False)
            loss = sum(losses[name](targets[name], outputs[name]) for name in losses)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    for found, expected in zip(gradients(dtype), gradients("float32"), strict=True):
        assert found.dtype == tf.float32
        scale = np.abs(expected.numpy()).max()
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=0.05 * scale)
        assert scale > 0


def test_in_precision_ends():
    model = detector()
    set_precision(model, "mixed_bfloat16")
    fc6 = model.get_layer("fc6")
    with in_precision(model, "float32"):
        assert fc6.compute_dtype == "float32"
    assert fc6.compute_dtype == "bfloat16"


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_a_run_in_mixed_precision(prepared_digits, tiny_recipe, tiny_backbone, tmp_path, dtype):
    """The loss decreases nearly as in float32; the saved model and Keras's policy are float32."""
    policies = []

    class Policy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            policies.append((keras.config.dtype_policy().name, self.model.get_layer("fc6").compute_dtype))

    summaries = {}
    for each in (dtype, "float32"):
        recipe = with_changes(tiny_recipe, {"dtype": each, "steps": 24, "optimizer.learning_rate": 1e-3})
        folder = tmp_path / each
        options = {"recipe": recipe, "backbone": tiny_backbone, "progress": False}
        summaries[each] = frcnn.train(prepared_digits[0], folder, callbacks=[Policy()], **options)
    assert policies == [("float32", HALF_TYPES[dtype])] * 24 + [("float32", "float32")] * 24
    assert keras.config.dtype_policy().name == "float32"
    assert summaries[dtype].loss == pytest.approx(summaries["float32"].loss, rel=0.1)
    model = frcnn.load_run(tmp_path / dtype).model
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}
