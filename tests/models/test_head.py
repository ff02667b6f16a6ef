"""The head after RoI pooling: a reused last stage, compared with the network's own layers on RoIs pooled by a loop; and
new layers instead of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from naive_model import (
    CLASSES,
    assert_outputs,
    changed_by_training,
    fit_two_steps,
    naive_predictions,
    naive_roi_pool,
    some_inputs,
    targets_for,
    with_large_predictors,
    with_lived_in_statistics,
)

from tf_fast_rcnn import InputError, export_saved_model, fast_rcnn, multi_task_loss, sgd
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling
from tf_fast_rcnn.models.fast_rcnn import DEFAULT_TARGET_STD
from tf_fast_rcnn.models.parts import stages
from tf_fast_rcnn.training.optimizers import adamw
from tf_fast_rcnn.training.precision import set_precision


def two_stages(*after, side=32, name="two_stages"):
    """Convolutions at strides 2 and 4 (`first`, `features`), then the given layers. `features` has 8x8 cells for images
    of 32x32 pixels."""
    keras.utils.set_random_seed(3)
    convolutions = [
        layers.Conv2D(6, 3, 2, padding="same", activation="relu", name="first"),
        layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="features"),
    ]
    return with_lived_in_statistics(keras.Sequential([keras.Input((side, side, 3)), *convolutions, *after], name=name))


def next_stage():
    return [
        layers.Conv2D(10, 3, 2, padding="same", name="strided"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
    ]


# Name -> layers after `features`, the last one whose output is reused, whether its output is a map to be averaged.
LAYOUTS = {
    "classifier alone": lambda: ([layers.GlobalAveragePooling2D(name="kept"), layers.Dense(5)], False),
    "convolution": lambda: ([*next_stage(), layers.GlobalAveragePooling2D(name="kept"), layers.Dense(5)], False),
    "one dense layer": lambda: (
        [layers.GlobalAveragePooling2D(), layers.Dense(9, "relu", name="kept"), layers.Dense(5, "softmax")],
        False,
    ),
    "three dense layers": lambda: (
        [
            *next_stage(),
            layers.GlobalMaxPooling2D(),
            layers.Dense(9, name="fc1"),
            layers.BatchNormalization(name="fc1_bn"),
            layers.Activation("relu"),
            layers.Dense(8, "relu", name="fc2"),
            layers.Dropout(0.4, name="dropout"),
            layers.Dense(7, "tanh", name="kept"),
            layers.Dense(5),
            layers.Softmax(),
        ],
        False,
    ),
    "flattened": lambda: ([*next_stage(), layers.Flatten(), layers.Dense(9, name="kept"), layers.Dense(5)], False),
    "classified by a convolution": lambda: (
        [
            *next_stage(),
            layers.GlobalAveragePooling2D(keepdims=True, name="kept"),
            layers.Conv2D(5, 1),
            layers.Reshape((5,)),
        ],
        True,
    ),
    "classified cell by cell": lambda: (
        [
            *next_stage()[:-1],
            layers.ReLU(name="kept"),
            layers.Conv2D(5, 1),
            layers.GlobalAveragePooling2D(),
            layers.Softmax(),
        ],
        True,
    ),
    "no classifier": lambda: ([*next_stage()[:-1], layers.ReLU(name="kept")], True),
}


def naive_reused(model, network, cut_layer, kept_layer, inputs, size, stride, averaged=False):
    """The network's own layers, applied to one RoI after another."""
    convolve = keras.Model(network.inputs[0], network.get_layer(cut_layer).output)
    features = convolve.call(inputs["images"]).numpy()
    after = keras.Model(network.get_layer(cut_layer).output, network.get_layer(kept_layer).output)
    rois = naive_roi_pool(features, inputs["rois"], size, stride).astype(np.float32)
    hidden = np.stack([[after.call(roi[None]).numpy()[0] for roi in of_image] for of_image in rois])
    hidden = hidden.mean(axis=(2, 3)) if averaged else hidden
    return naive_predictions(model, hidden, DEFAULT_TARGET_STD)


def reusing_model(network=None, **options):
    network = network or two_stages(*LAYOUTS["three dense layers"]()[0])
    return with_large_predictors(fast_rcnn(network, CLASSES, **{"head": "reuse", "stride": 4, **options}))


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_reused_stage_is_the_networks_own(layout):
    after, averaged = LAYOUTS[layout]()
    network = two_stages(*after)
    model, inputs = reusing_model(network), some_inputs()
    expected = naive_reused(model, network, "features", "kept", inputs, (8, 8), 4, averaged)
    assert np.ptp(expected["class_logits"], axis=1).min() > 0.01  # the outputs differ between RoIs
    assert_outputs(model(inputs), expected)


def test_a_cut_at_another_stride_and_another_pooled_size():
    after, _ = LAYOUTS["convolution"]()
    network = two_stages(*after)
    model, inputs = reusing_model(network, stride=2, roi_output_size=(4, 6)), some_inputs()
    assert_outputs(model(inputs), naive_reused(model, network, "first", "kept", inputs, (4, 6), 2))


@pytest.mark.parametrize("roi_output_size", [None, (3, 3)])
def test_resnet_50_is_cut_before_conv5(roi_output_size):
    """K. He et al. (CVPR 2016): RoI pooling before conv5_1, whose first block has stride 2; then average pooling."""
    network = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=2)
    model = with_large_predictors(fast_rcnn(network, CLASSES, roi_output_size=roi_output_size))
    inputs = some_inputs(1, 3, 48, 64)
    size = roi_output_size or (4, 4)  # 64 / 16
    # Initially, Keras's biases are zero and its batch normalisations have no effect, so activations stay small.
    expected = naive_reused(model, network, "conv4_block6_out", "avg_pool", inputs, size, 16)
    scale = np.abs(expected["class_logits"]).max()
    assert_outputs(model(inputs), expected, rtol=1e-4, atol=1e-4 * scale)
    reused = [layer for layer in model.get_layer("last_stage").layers if layer.weights]
    assert {layer.name.split("_")[0] for layer in reused} == {"conv5"}
    assert len(reused) == 2 * (3 * 3 + 1)  # three blocks of three convolutions, one shortcut; each is normalised
    for layer in reused:
        for found, expected in zip(layer.get_weights(), network.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_no_rois_and_sizes_that_vary():
    network = two_stages(*LAYOUTS["three dense layers"]()[0])
    model = reusing_model(network)
    for images, rois, height, width in [(1, 1, 8, 12), (3, 4, 21, 50), (2, 0, 16, 16)]:
        inputs = some_inputs(images, rois, height, width)
        found = model.predict_on_batch(inputs)
        assert found["box_deltas"].shape == (images, rois, CLASSES, 4)
        if rois:
            assert_outputs(found, naive_reused(model, network, "features", "kept", inputs, (8, 8), 4))


@pytest.mark.parametrize("roi_pooling", [None, "portable"])
def test_stages_compose_to_the_model(roi_pooling):
    model, inputs = reusing_model(), some_inputs()
    parts = stages(model, roi_pooling)
    pooled = parts.pool(parts.convolve(inputs["images"]), inputs["rois"])
    for name, values in model(inputs).items():
        np.testing.assert_array_equal(parts.classify(pooled)[name], values)


def test_an_exported_model_computes_the_same(tmp_path):
    model, inputs = reusing_model(), some_inputs()
    export_saved_model(model, tmp_path / "1", class_names=["a", "b", "c"])
    predict = tf.saved_model.load(tmp_path / "1").signatures["predict_tensors"]
    found = predict(**{name: tf.constant(value) for name, value in inputs.items()})
    expected = tf.nn.softmax(model(inputs)["class_logits"])
    np.testing.assert_allclose(found["class_probabilities"], expected, rtol=1e-5, atol=1e-6)


# --- training ---------------------------------------------------------------------------------------------------------


STAGE = {"strided", "fc1", "fc2", "kept"}
PREDICTOR_LAYERS = {"class_logits", "box_regression"}


@pytest.mark.parametrize(
    ("finetune_from", "tuned"),
    [
        (None, {"first", "features"} | STAGE | PREDICTOR_LAYERS),
        ("features", {"features"} | STAGE | PREDICTOR_LAYERS),
        ("head", STAGE | PREDICTOR_LAYERS),
        ("fc2", {"fc2", "kept"} | PREDICTOR_LAYERS),
    ],
)
def test_training_reaches_the_stage_but_for_its_batch_normalization(finetune_from, tuned):
    assert changed_by_training(reusing_model(finetune_from=finetune_from)) == tuned


def test_the_given_network_is_left_as_it_was():
    network = two_stages(*LAYOUTS["convolution"]()[0])
    before = network.get_weights()
    fit_two_steps(reusing_model(network))
    for found, expected in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all(layer.trainable for layer in network.layers)


def test_the_stage_learns_at_the_backbones_rate():
    """With learning rate 0 for the pre-trained layers, only the predictor layers learn."""
    model = reusing_model(two_stages(*LAYOUTS["convolution"]()[0]))
    before = model.get_layer("last_stage").get_weights()
    predictor = model.get_layer("class_logits").get_weights()[0]
    fit_two_steps(model, adamw(model, backbone_lr_multiplier=0.0))
    for found, expected in zip(model.get_layer("last_stage").get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(model.get_layer("class_logits").get_weights()[0], predictor)


def test_the_stage_computes_in_half_types():
    model = reusing_model(two_stages(*LAYOUTS["convolution"]()[0]))
    whole = model(some_inputs())
    set_precision(model, "mixed_bfloat16")
    strided = model.get_layer("last_stage").get_layer("strided")
    assert (strided.compute_dtype, strided.variable_dtype) == ("bfloat16", "float32")
    for name, values in model(some_inputs()).items():
        assert values.dtype == "float32"
        error = np.abs(np.asarray(values) - np.asarray(whole[name])).max()
        assert 0 < error < 0.05 * np.abs(np.asarray(whole[name])).max()


def assert_built_trained_and_saved(tmp_path, name, head, rois=8):
    model = fast_rcnn(name, CLASSES, weights=None, head=head, fc_units=(16, 16))
    inputs = some_inputs(images=2, rois=rois, height=64, width=96)
    model.compile(optimizer=sgd(1e-4), loss=multi_task_loss(model), jit_compile=False)
    history = model.fit(inputs, targets_for(inputs), batch_size=2, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for output, values in model(inputs).items():
        np.testing.assert_allclose(loaded(inputs)[output], values, rtol=1e-5, atol=1e-6)
    for part in [layer for layer in model.layers if hasattr(layer, "layers")]:
        flags = [
            [(layer.name, layer.trainable) for layer in each.layers] for each in (part, loaded.get_layer(part.name))
        ]
        assert flags[0] == flags[1]


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2"])
def test_small_networks_carry_their_last_stage(tmp_path, name):
    assert_built_trained_and_saved(tmp_path, name, "reuse")


FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "efficientnet_lite0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "ResNet50",
    "ResNet50V2",
    "ResNet101",
    "VGG16",
    "VGG19",
    "Xception",
)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["reuse", "fc"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_networks(tmp_path, name, head):
    assert_built_trained_and_saved(tmp_path, name, head)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [("NASNetMobile", "fc"), ("MobileNet", "fc"), ("MobileNetV2", "fc"), ("caffenet", "fc"), ("vgg_cnn_m_1024", "fc")],
)
def test_new_layers_on_the_other_families(tmp_path, name, head):
    assert_built_trained_and_saved(tmp_path, name, head)


# --- which head -------------------------------------------------------------------------------------------------------


def vgg_like():
    return two_stages(layers.MaxPooling2D(name="pool"), layers.Flatten(), layers.Dense(9, name="fc"), layers.Dense(5))


def resnet(name="resnet_tiny"):
    """Split at stride 16 if the name says that it is a ResNet."""
    deeper = [layers.Conv2D(8, 3, 4, padding="same", name="conv4"), *next_stage()]
    return two_stages(*deeper, layers.GlobalAveragePooling2D(), layers.Dense(5), side=64, name=name)


def kind(network, **options):
    cut = cut_at_roi_pooling(network, **options)
    return "stage" if cut.stage else "fully connected" if cut.fc_layers else "new"


@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (vgg_like, {}, "fully connected"),
        (vgg_like, {"head": "reuse"}, "fully connected"),
        (vgg_like, {"roi_output_size": (4, 4)}, "fully connected"),
        (vgg_like, {"roi_output_size": (1, 2, 4)}, "new"),
        (vgg_like, {"head": "fc", "stride": 4}, "new"),
        (resnet, {}, "stage"),
        (resnet, {"roi_output_size": 2, "stride": (16,)}, "stage"),
        (resnet, {"stride": (4, 16)}, "new"),
        (resnet, {"stride": 4}, "new"),
        (resnet, {"roi_output_size": (1, 2, 3)}, "new"),
        (resnet, {"head": "fc"}, "new"),
        (lambda: resnet("another"), {}, "new"),
        (lambda: resnet("another"), {"head": "reuse"}, "stage"),
    ],
)
def test_which_head_a_network_gets(make, options, expected):
    assert kind(make(), **options) == expected


def test_a_classifier_that_is_a_convolution_is_no_feature_map():
    network = two_stages(*LAYOUTS["classified cell by cell"]()[0])
    for head in ("fc", "reuse"):
        cut = cut_at_roi_pooling(network, stride=8, head=head)
        assert cut.convolutions.layers[-1].name == "kept"
        assert cut.convolutions.outputs[0].shape[-1] == 10


def test_new_layers_where_the_network_has_its_own():
    cut = cut_at_roi_pooling(vgg_like(), head="fc", stride=4)
    assert (cut.strides, cut.roi_output_size, cut.fc_layers, cut.stage) == ([4], (7, 7), [], None)
    model = fast_rcnn(vgg_like(), CLASSES, head="fc", stride=(2, 4), fc_units=(11,))
    assert model.get_layer("fc6").kernel.shape == (7 * 7 * (6 + 8), 11)


def with_paths_around():
    """Like NASNet's cells, which use the outputs of the two previous cells."""
    images = keras.Input((32, 32, 3))
    first, second = (layers.Conv2D(4, 3, 4, padding="same")(images) for _ in range(2))
    joint = layers.Add()([first, second])
    reduced = [layers.Conv2D(4, 3, 2, padding="same")(each) for each in (joint, second)]
    scores = layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.Concatenate()(reduced)))
    return keras.Model(images, scores, name="around")


def two_outputs():
    network = two_stages(*LAYOUTS["convolution"]()[0])
    return keras.Model(network.inputs[0], [network.outputs[0], network.get_layer("relu").output], name="double")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (vgg_like, {"head": "tail"}, r"^head: found 'tail'; expected one of auto, fc, reuse"),
        (
            vgg_like,
            {"roi_output_size": 3},
            r"^roi_output_size: found \(3, 3\); expected \(4, 4\), the input size of fc in two_stages",
        ),
        (vgg_like, {"roi_output_size": (1, 2, 4)}, r"^roi_output_size: found \(\(1, 1\), .*; expected \(4, 4\)"),
        (resnet, {"stride": (4, 16)}, r"^stride: found 2 feature maps with head='reuse'; expected one"),
        (resnet, {"roi_output_size": (1, 2, 4)}, r"^roi_output_size: found .*; expected one grid such as \(4, 4\)"),
        (resnet, {"stride": 64}, r"^stride: found no feature map of stride 64"),
        (
            with_paths_around,
            {"stride": 4},
            r"^head: found 'reuse' for around, whose skip connections bypass the pooled",
        ),
        (two_outputs, {"stride": 4}, r"^head: found 'reuse' for double"),
    ],
)
def test_what_cannot_be_reused_is_an_input_error(make, options, message):
    with pytest.raises(InputError, match=message):
        cut_at_roi_pooling(make(), **{"head": "reuse", **options})


@pytest.mark.parametrize("roi_output_size", [3, (8, 4)])
def test_a_pooled_size_that_flattened_layers_do_not_fit(roi_output_size):
    network = two_stages(*LAYOUTS["flattened"]()[0])
    with pytest.raises(
        InputError, match=r"^roi_output_size: found .*; expected a size that .* such as \(8, 8\); leave"
    ):
        cut_at_roi_pooling(network, 4, roi_output_size, "reuse")
