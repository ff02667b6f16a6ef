"""`fast_rcnn` compared with its layers one by one: NumPy loops for the RoIs, the given network for the rest."""

import zipfile

import keras
import numpy as np
import pytest
from keras import layers
from naive_model import (
    CLASSES,
    assert_outputs,
    changed_by_training,
    dense,
    fit_two_steps,
    naive_predictions,
    naive_roi_pool,
    some_inputs,
    with_large_predictors,
    with_lived_in_statistics,
)

from tf_fast_rcnn import BoxStatistics, InputError, fast_rcnn, multi_task_loss
from tf_fast_rcnn.models.backbones import Preprocessing
from tf_fast_rcnn.models.fast_rcnn import DEFAULT_TARGET_STD, BoxDenormalization
from tf_fast_rcnn.models.losses import BoxLoss
from tf_fast_rcnn.models.parts import stages

STATISTICS = BoxStatistics(
    np.linspace(-0.5, 0.6, 4 * CLASSES).reshape(CLASSES, 4).astype(np.float32),
    np.linspace(0.1, 1.2, 4 * CLASSES).reshape(CLASSES, 4).astype(np.float32),
)
PREPROCESSING = {"channel_order": "bgr", "mean": (100.0, 110.0, 120.0), "scale": (0.01, 0.02, 0.03)}


def residual_backbone():
    """Ends in global pooling; stride 4; batch normalisation with statistics other than the initial ones."""
    keras.utils.set_random_seed(1)
    images = keras.Input((None, None, 3))
    trunk = layers.Conv2D(6, 3, 2, padding="same", activation="relu", name="conv1")(images)
    trunk = layers.BatchNormalization(name="bn1")(trunk)
    trunk = layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="conv2")(trunk)
    branch = layers.Conv2D(8, 3, padding="same", name="conv3")(trunk)
    branch = layers.BatchNormalization(name="bn3")(branch)
    features = layers.Add(name="features")([trunk, branch])
    scores = layers.Dense(5, name="predictions")(layers.GlobalAveragePooling2D()(features))
    return with_lived_in_statistics(keras.Model(images, scores, name="residual"))


def vgg_like_backbone():
    """Ends in a pooling to 4x4, flattening and two fully connected layers with common layers between them."""
    keras.utils.set_random_seed(2)
    network = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(5, 3, padding="same", activation="relu", name="features"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(),
            layers.Dense(9, name="fc1"),
            layers.BatchNormalization(name="fc1_bn"),
            layers.ReLU(name="fc1_relu"),
            layers.Dropout(0.3),
            layers.Dense(7, "relu", name="fc2"),
            layers.Dropout(0.3),
            layers.Dense(5, "softmax", name="predictions"),
        ],
        name="vgg_like",
    )
    return with_lived_in_statistics(network)


def residual_model(**options):
    options = {"stride": 4, "roi_output_size": (2, 3), "fc_units": (12, 10), "box_statistics": STATISTICS, **options}
    return fast_rcnn(residual_backbone(), CLASSES, preprocessing=Preprocessing(**PREPROCESSING), **options)


def vgg_like_model(**options):
    return fast_rcnn(
        vgg_like_backbone(),
        CLASSES,
        preprocessing=Preprocessing(**PREPROCESSING),
        **{"box_statistics": STATISTICS, **options},
    )


def preprocessed(images):
    return (images[..., ::-1] - np.float32(PREPROCESSING["mean"])) * np.float32(PREPROCESSING["scale"])


def naive_residual(model, inputs):
    backbone = residual_backbone()
    convolve = keras.Model(backbone.input, backbone.get_layer("features").output)
    features = convolve(preprocessed(inputs["images"]), training=False).numpy()
    hidden = naive_roi_pool(features, inputs["rois"], (2, 3), 4).reshape(*inputs["rois"].shape[:2], 48)
    for name in ("fc6", "fc7"):
        hidden = np.maximum(dense(hidden, model.get_layer(name)), 0)
    return naive_predictions(model, hidden, STATISTICS.std, STATISTICS.mean)


def naive_vgg_like(model, inputs):
    """With the fully connected layers of the given network, which must have been reused."""
    backbone = vgg_like_backbone()
    features = preprocessed(inputs["images"])
    for name in ("conv1", "pool1", "features"):
        features = backbone.get_layer(name)(features)
    hidden = naive_roi_pool(features.numpy(), inputs["rois"], (4, 4), 2).reshape(*inputs["rois"].shape[:2], 80)
    gamma, beta, mean, variance = backbone.get_layer("fc1_bn").get_weights()
    hidden = (dense(hidden, backbone.get_layer("fc1")) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    hidden = np.maximum(dense(np.maximum(hidden, 0), backbone.get_layer("fc2")), 0)
    return naive_predictions(model, hidden, STATISTICS.std, STATISTICS.mean)


# --- the three transformations ----------------------------------------------------------------------------------------


def test_inputs_and_outputs():
    model = residual_model()
    described = {name: (tensor.shape, tensor.dtype) for name, tensor in {**model.input, **model.output}.items()}
    assert described == {
        "images": ((None, None, None, 3), "float32"),
        "rois": ((None, None, 4), "float32"),
        "class_logits": ((None, None, CLASSES + 1), "float32"),
        "box_deltas": ((None, None, CLASSES, 4), "float32"),
    }
    assert set(model.input) == {"images", "rois"}


@pytest.mark.parametrize(("make", "naive"), [(residual_model, naive_residual), (vgg_like_model, naive_vgg_like)])
@pytest.mark.parametrize("roi_pooling", ["native", "portable"])
def test_outputs_equal_the_naive_computation(make, naive, roi_pooling):
    model, inputs = with_large_predictors(make(roi_pooling=roi_pooling)), some_inputs()
    expected = naive(model, inputs)
    assert np.ptp(expected["class_logits"], axis=1).min() > 0.1  # the outputs differ between RoIs
    assert_outputs(model(inputs), expected)
    assert_outputs(model.predict(inputs, verbose=0), expected)


def test_images_rois_and_sizes_vary_from_call_to_call():
    model = with_large_predictors(residual_model())
    for images, rois, height, width in [(1, 1, 8, 12), (3, 4, 21, 50), (1, 9, 40, 17)]:
        inputs = some_inputs(images, rois, height, width)
        assert_outputs(model.predict_on_batch(inputs), naive_residual(model, inputs))


@pytest.mark.parametrize("roi_pooling", ["native", "portable"])
def test_a_spatial_pyramid_equals_the_naive_computation(roi_pooling):
    model, inputs = (
        with_large_predictors(residual_model(roi_output_size=(1, 2, 3), roi_pooling=roi_pooling)),
        some_inputs(),
    )
    backbone = residual_backbone()
    convolve = keras.Model(backbone.input, backbone.get_layer("features").output)
    features = convolve(preprocessed(inputs["images"]), training=False).numpy()
    levels = [naive_roi_pool(features, inputs["rois"], (side, side), 4) for side in (1, 2, 3)]
    hidden = np.concatenate([level.reshape(2, 6, -1) for level in levels], axis=-1)  # 8, 32 and 72 values
    for name in ("fc6", "fc7"):
        hidden = np.maximum(dense(hidden, model.get_layer(name)), 0)
    assert_outputs(model(inputs), naive_predictions(model, hidden, STATISTICS.std, STATISTICS.mean))
    parts = stages(model)
    outputs = parts.classify(parts.pool(parts.convolve(inputs["images"]), inputs["rois"]))
    assert_outputs(outputs, naive_predictions(model, hidden, STATISTICS.std, STATISTICS.mean))


def test_a_pyramid_over_several_maps_has_their_channels_side_by_side():
    model, inputs = residual_model(roi_output_size=(1, 2, 3), stride=(2, 4)), some_inputs()
    parts = stages(model)
    features = parts.convolve(inputs["images"])
    pooled = parts.pool(features, inputs["rois"])
    assert pooled.shape == (2, 6, 14, 6 + 8)
    for each, stride, channels in zip(features, (2, 4), (slice(6), slice(6, None)), strict=True):
        whole = naive_roi_pool(np.asarray(each), inputs["rois"], (1, 1), stride)[:, :, 0, 0]
        np.testing.assert_array_equal(np.asarray(pooled)[:, :, 0, channels], whole)
    for name, values in model(inputs).items():
        np.testing.assert_array_equal(parts.classify(pooled)[name], values)


@pytest.mark.parametrize("make", [residual_model, vgg_like_model])
def test_no_rois(make):
    outputs = make()(some_inputs(rois=0))
    assert outputs["class_logits"].shape == (2, 0, CLASSES + 1)
    assert outputs["box_deltas"].shape == (2, 0, CLASSES, 4)


def test_predictor_layers_start_as_in_section_2_3():
    """N(0, 0.01) for classes, N(0, 0.001) for boxes, biases 0; within 4 standard errors of 2,560 and 7,680 draws."""
    model = fast_rcnn(residual_backbone(), 30, stride=4, fc_units=(256,))
    class_kernel, class_bias = model.get_layer("class_logits").get_weights()
    box_kernel, box_bias = model.get_layer("box_regression").get_weights()
    for kernel, std in ((class_kernel, 0.01), (box_kernel, 0.001)):
        assert abs(kernel.std() / std - 1) < 4 / np.sqrt(2 * kernel.size)
        assert abs(kernel.mean()) < 4 * std / np.sqrt(kernel.size)
    assert not class_bias.any()
    assert not box_bias.any()
    np.testing.assert_array_equal(model.get_layer("box_deltas").std, np.tile(np.float32(DEFAULT_TARGET_STD), (30, 1)))


def test_the_seed_decides_on_new_layers():
    kernels = [
        [residual_model(seed=seed).get_layer(name).kernel.numpy() for name in ("fc6", "fc7", "class_logits")]
        for seed in (3, 3, 4)
    ]
    for same, other in ((kernels[0], kernels[1]), (kernels[2], kernels[2])):
        assert all(np.array_equal(a, b) for a, b in zip(same, other, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(kernels[0], kernels[2], strict=True))


def test_fully_connected_layers_are_reused_or_new():
    def names(model):
        return [layer.name for layer in model.layers if layer.name.startswith("fc")]

    assert names(residual_model()) == ["fc6", "fc6_dropout", "fc7", "fc7_dropout"]
    assert names(residual_model(fc_units=(8,), dropout=0.0)) == ["fc6"]
    assert names(vgg_like_model(fc_units=(99,))) == ["fc1", "fc1_dropout", "fc1_bn", "fc1_relu", "fc2", "fc2_dropout"]


# --- training ---------------------------------------------------------------------------------------------------------


def dropped(model):
    """For each dropout layer of a model, the share of ones that it drops, and which."""
    dropouts = [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    return [layer(np.ones((1, 50, 12), np.float32), training=True).numpy() == 0 for layer in dropouts]


def test_dropout_is_what_was_asked_for_and_differs_from_layer_to_layer():
    for model in (residual_model(fc_units=(12, 12), dropout=0.4), vgg_like_model(dropout=0.4)):
        masks = dropped(model)
        assert len(masks) == 2
        assert all(abs(mask.mean() - 0.4) < 4 * np.sqrt(0.24 / mask.size) for mask in masks)
        assert not np.array_equal(*masks)
    assert dropped(vgg_like_model(dropout=0.0)) == []


def test_training_reaches_all_layers_but_batch_normalization():
    """Including the first convolution: gradients pass through RoI pooling."""
    new = {"fc6", "fc7", "class_logits", "box_regression"}
    assert changed_by_training(residual_model()) == {"conv1", "conv2", "conv3"} | new


def test_batch_normalization_between_fully_connected_layers_is_frozen_too():
    tuned = {"conv1", "features", "fc1", "fc2", "class_logits", "box_regression"}
    assert changed_by_training(vgg_like_model()) == tuned


@pytest.mark.parametrize(
    ("finetune_from", "tuned"),
    [
        ("conv1", {"conv1", "conv2", "conv3"}),
        ("conv2", {"conv2", "conv3"}),
        ("features", set()),
        ("head", set()),
    ],
)
def test_layers_before_tune_from_keep_their_weights(finetune_from, tuned):
    new = {"fc6", "fc7", "class_logits", "box_regression"}
    assert changed_by_training(residual_model(finetune_from=finetune_from)) == tuned | new


def test_vgg16_is_tuned_from_conv3_1():
    """Section 4.5; with an input size that keeps the fully connected layers small."""
    network = keras.applications.VGG16(weights=None, classes=2, input_shape=(32, 32, 3))
    convolutions = fast_rcnn(network, 2).get_layer("convolutions")
    frozen = [layer.name for layer in convolutions.layers if layer.weights and not layer.trainable]
    assert frozen == ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"]


def test_training_leaves_the_given_network_as_it_was():
    network = vgg_like_backbone()
    before = network.get_weights()
    fit_two_steps(fast_rcnn(network, CLASSES))
    for found, expected in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all(layer.trainable for layer in network.layers)


# --- saving, precision, stages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: residual_model(finetune_from="conv2"), vgg_like_model])
def test_a_saved_model_is_complete(tmp_path, make):
    model, inputs = with_large_predictors(make()), some_inputs()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, values in model(inputs).items():
        np.testing.assert_array_equal(loaded(inputs)[name], values)
    for attribute, expected in STATISTICS._asdict().items():
        np.testing.assert_array_equal(getattr(loaded.get_layer("box_deltas"), attribute), expected)
    for part in (lambda model: model, lambda model: model.get_layer("convolutions")):
        flags = [
            [(layer.name, layer.trainable) for layer in part(each).layers if layer.weights] for each in (model, loaded)
        ]
        assert flags[0] == flags[1]
    assert (loaded.input.keys(), loaded.output.keys()) == (model.input.keys(), model.output.keys())


def test_a_model_that_0_1_saved_is_read(tmp_path, monkeypatch):
    """There, the standard deviations were called "deviation" in the layer and in the loss."""
    model, inputs = with_large_predictors(residual_model()), some_inputs()
    model.compile(loss=multi_task_loss(model))
    for kind in (BoxDenormalization, BoxLoss):
        current = kind.get_config

        def get_config(self, current=current):
            config = current(self)
            deviation = config.pop("std")
            return {**config, "deviation": deviation}

        monkeypatch.setattr(kind, "get_config", get_config)
    model.save(tmp_path / "model.keras")
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        text = archive.read("config.json").decode()
    assert text.count('"deviation"') == 2
    assert '"std"' not in text
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_layer("box_deltas").std, STATISTICS.std)
    np.testing.assert_array_equal(loaded.loss["box_deltas"].std, STATISTICS.std)
    for name, values in model(inputs).items():
        np.testing.assert_array_equal(loaded(inputs)[name], values)


@pytest.fixture
def bfloat16_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("bfloat16_policy")
def test_half_types_touch_neither_rois_nor_outputs():
    """bfloat16 has 8 significant bits: beyond column 256 it cannot represent odd pixels."""
    model = with_large_predictors(residual_model())
    inputs = some_inputs(1, 40, 16, 900)
    parts = stages(model)
    features = parts.convolve(inputs["images"])
    assert features.dtype == "bfloat16"
    pooled = np.asarray(parts.pool(features, inputs["rois"])).astype(np.float32)
    expected = naive_roi_pool(np.asarray(features).astype(np.float32), inputs["rois"], (2, 3), 4)
    np.testing.assert_array_equal(pooled, expected)
    outputs = model(inputs)
    assert {name: value.dtype.name for name, value in outputs.items()} == dict.fromkeys(outputs, "float32")
    assert_outputs(outputs, naive_residual(model, inputs), rtol=0.1, atol=0.5)


@pytest.mark.parametrize("roi_pooling", [None, "native", "portable"])
@pytest.mark.parametrize("loaded", [False, True])
def test_stages_compose_to_the_model(tmp_path, roi_pooling, loaded):
    model, inputs = with_large_predictors(vgg_like_model()), some_inputs()
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    parts = stages(model, roi_pooling)
    outputs = parts.classify(parts.pool(parts.convolve(inputs["images"]), inputs["rois"]))
    for name, values in model(inputs).items():
        np.testing.assert_array_equal(outputs[name], values)


# --- bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"finetune_from": "conv9"},
            r"^finetune_from: found 'conv9'; expected one of the layers .*conv1, bn1",
        ),
        ({"stride": 16}, r"^stride: found no feature map of stride 16"),
        (
            {"box_statistics": BoxStatistics(np.zeros((2, 4)), np.ones((2, 4)))},
            r"^box_statistics: .*\(2, 4\); .*\(3, 4\)",
        ),
    ],
)
def test_bad_arguments_are_input_errors(options, message):
    with pytest.raises(InputError, match=message):
        residual_model(**options)


def test_at_least_one_class():
    with pytest.raises(InputError, match=r"^num_classes: found 0"):
        fast_rcnn(residual_backbone(), 0)
