"""Splitting networks: checked by layer names in known networks, and by the values of sub-models of the original."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling, with_any_image_size
from tf_fast_rcnn.models.backbones import load_backbone


def images_like(network, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *network.input_shape[1:])).astype(np.float32)


def cut_layer(cut):
    return cut.convolutions.outputs[0]._keras_history.operation.name


def assert_features_are_the_originals(network, cut, layer_name):
    """At the network's own size, with the split network and with its copy for any size."""
    images = images_like(network)
    expected = keras.Model(network.inputs[0], network.get_layer(layer_name).output)(images).numpy()
    assert np.ptp(expected) > 0
    # Batch normalisation in the convolutions rounds differently.
    for found in (cut.convolutions(images), with_any_image_size(cut.convolutions, "copy")(images)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def convolutional_layers(*channels, **options):
    """Convolution, batch normalisation, ReLU and 2x2 max pooling for each number of channels."""
    return [
        layer
        for number, count in enumerate(channels, start=1)
        for layer in (
            layers.Conv2D(count, 3, padding="same", name=f"conv{number}", **options),
            layers.BatchNormalization(name=f"bn{number}"),
            layers.ReLU(name=f"relu{number}"),
            layers.MaxPooling2D(name=f"pool{number}"),
        )
    ]


def small_cnn(side=32):
    """Ends in max pooling, flattening and three dense layers, as VGG16 does."""
    head = [layers.Flatten(), layers.Dense(9, "relu", name="fc1"), layers.Dense(7, "relu", name="fc2")]
    return keras.Sequential(
        [keras.Input((side, side, 3)), *convolutional_layers(4, 6), *head, layers.Dense(5, name="predictions")]
    )


def globally_pooled(*stages, side=32):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(5)]
    return keras.Sequential([keras.Input((side, side, 3)), *convolutional_layers(*stages)[:-1], *head])


# --- networks with fully connected layers -----------------------------------------------------------------------------


def test_vgg16_gives_its_pooling_and_its_fully_connected_layers():
    network = keras.applications.VGG16(weights=None, classes=2)
    cut = cut_at_roi_pooling(network)
    assert (cut.strides, cut.roi_output_size, cut_layer(cut)) == ([16], (7, 7), "block5_conv3")
    assert [layer.name for layer in cut.fc_layers] == ["fc1", "fc2"]
    for layer in cut.fc_layers:
        np.testing.assert_array_equal(layer.kernel, network.get_layer(layer.name).kernel)
        np.testing.assert_array_equal(layer.bias, network.get_layer(layer.name).bias)


def test_vgg16_at_another_size_is_pooled_to_what_its_fc1_takes():
    network = keras.applications.VGG16(weights=None, classes=2, input_shape=(64, 96, 3))
    cut = cut_at_roi_pooling(network, stride=4)  # for networks without such a pooling
    assert (cut.strides, cut.roi_output_size) == ([16], (2, 3))
    assert_features_are_the_originals(network, cut, "block5_conv3")


def test_fully_connected_layers_are_left_out_where_another_pooled_size_is_asked_for():
    for size, grids in ((5, (5, 5)), ((1, 2, 4), ((1, 1), (2, 2), (4, 4)))):
        cut = cut_at_roi_pooling(small_cnn(), roi_output_size=size)
        assert (cut.strides, cut.roi_output_size, cut.fc_layers, cut_layer(cut)) == ([2], grids, [], "relu2")
    assert len(cut_at_roi_pooling(small_cnn(), roi_output_size=8).fc_layers) == 2


def test_small_sequential_network():
    network = small_cnn()
    cut = cut_at_roi_pooling(network)
    assert (cut.strides, cut.roi_output_size) == ([2], (8, 8))
    assert [layer.name for layer in cut.fc_layers] == ["fc1", "fc2"]
    assert_features_are_the_originals(network, cut, "relu2")


def test_a_network_with_one_dense_layer_has_none_to_carry_over():
    head = [layers.Flatten(), layers.Dense(5), layers.Softmax()]
    network = keras.Sequential([keras.Input((32, 32, 3)), *convolutional_layers(4, 6), *head])
    cut = cut_at_roi_pooling(network)
    assert (cut.strides, cut.roi_output_size, cut.fc_layers) == ([2], (8, 8), [])
    assert_features_are_the_originals(network, cut, "relu2")


def test_a_pooling_layer_that_is_used_again_and_again_is_cut_at_its_last_use():
    images, pool = keras.Input((32, 32, 3)), layers.MaxPooling2D()
    x = images
    for number, channels in enumerate((4, 6, 8)):
        x = pool(layers.Conv2D(channels, 3, padding="same", name=f"conv{number}")(x))
    x = layers.Dense(9, name="fc")(layers.Flatten()(x))
    network = keras.Model(images, layers.Dense(5)(x))
    cut = cut_at_roi_pooling(network)
    assert (cut.strides, cut.roi_output_size, [layer.name for layer in cut.fc_layers]) == ([4], (4, 4), ["fc"])
    assert_features_are_the_originals(network, cut, "conv2")


def test_flattening_without_a_pooling_is_cut_at_the_stride():
    network = keras.Sequential(
        [keras.Input((32, 32, 3)), *convolutional_layers(4, 6)[:-1], layers.Flatten(), layers.Dense(9), layers.Dense(5)]
    )
    cut = cut_at_roi_pooling(network, stride=2, roi_output_size=(3, 4))
    assert (cut.strides, cut.roi_output_size, cut.fc_layers) == ([2], (3, 4), [])
    assert_features_are_the_originals(network, cut, "relu2")


# --- networks that end in global pooling ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stride", "layer", "channels"),
    [
        ("efficientnet_lite0", 16, "block5c_add", 112),
        ("efficientnet_lite0", 8, "block3b_add", 40),
        ("efficientnet_lite0", 32, "block7a_project_bn", 320),
        ("mobilenet", 16, "conv_pw_11_relu", 512),
        ("mobilenet_v2", 16, "block_12_add", 96),
        ("MobileNetV3Small", 16, "expanded_conv_7_add", 48),
        ("resnet50", 16, "conv4_block6_out", 1024),
        ("resnet50_v2", 16, "conv4_block5_out", 1024),
        ("densenet121", 16, "pool4_conv", 512),
    ],
)
def test_known_networks_are_cut_at_the_end_of_a_stage(name, stride, layer, channels):
    cut = cut_at_roi_pooling(load_backbone(name, weights=None).network, stride, head="fc")
    assert (cut_layer(cut), cut.convolutions.outputs[0].shape[-1]) == (layer, channels)
    assert (cut.strides, cut.roi_output_size, cut.fc_layers) == ([stride], (7, 7), [])


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_features_are_those_of_the_original(name):
    network = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=2)
    layer = {"MobileNetV2": "block_12_add", "ResNet50": "conv4_block6_out"}[name]
    assert_features_are_the_originals(network, cut_at_roi_pooling(network), layer)


def test_a_network_whose_cells_overlap_is_cut_at_the_last_cell_of_the_stage():
    """NASNet's cells use the outputs of the two previous cells, so no map is on every path."""
    cut = cut_at_roi_pooling(keras.applications.NASNetMobile(weights=None))
    assert cut.strides == [16]
    assert (
        cut.convolutions.layers[-1].name == "normal_concat_8"
    )  # the last cell at stride 16, of cells 0..3, 5..8, 9..12
    assert cut.convolutions.outputs[0].shape == (None, 14, 14, 528)  # 6 parts of 88 channels (Zoph et al., 2018, N = 4)


def test_several_strides_give_a_map_each():
    cut = cut_at_roi_pooling(load_backbone("efficientnet_lite0", weights=None).network, stride=(8, 16))
    assert cut.strides == [8, 16]
    assert [output._keras_history.operation.name for output in cut.convolutions.outputs] == [
        "block3b_add",
        "block5c_add",
    ]


def test_features_of_images_of_any_size_have_the_stride():
    convolutions = cut_at_roi_pooling(load_backbone("efficientnet_lite0", weights=None).network).convolutions
    features = with_any_image_size(convolutions, "any_size")(np.zeros((1, 64, 96, 3), np.float32))
    assert features.shape == (1, 4, 6, 112)


@pytest.mark.parametrize(("stride", "layer"), [(1, "relu1"), (2, "relu2"), (4, "relu3")])
def test_a_plain_network_that_widens_at_each_stage_keeps_the_stages_convolutions(stride, layer):
    network = globally_pooled(4, 6, 8)
    cut = cut_at_roi_pooling(network, stride)
    assert (cut_layer(cut), cut.strides) == (layer, [stride])
    assert_features_are_the_originals(network, cut, layer)


def residual_network():
    """A block whose branch is narrower than its shortcut, then the expansion of an inverted bottleneck."""
    images = keras.Input((32, 32, 3))
    trunk = layers.Conv2D(8, 3, 2, padding="same", name="stem")(images)
    branch = layers.Conv2D(2, 1, name="squeeze")(trunk)
    branch = layers.Conv2D(8, 3, padding="same", name="branch")(branch)
    x = layers.Add(name="sum")([trunk, branch])
    x = layers.Conv2D(48, 1, name="expand")(x)
    x = layers.Multiply(name="swish")([x, layers.Activation("sigmoid")(x)])
    x = layers.ZeroPadding2D(1)(x)
    x = layers.DepthwiseConv2D(3, 2, name="reduce")(x)
    return keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def test_the_cut_lies_on_every_path_and_before_an_expansion():
    network = residual_network()
    cut = cut_at_roi_pooling(network, stride=2)
    assert cut_layer(cut) == "sum"
    assert_features_are_the_originals(network, cut, "sum")


def test_layers_and_operations_that_are_called_twice():
    # With some weights, ReLU leaves nothing.
    keras.utils.set_random_seed(0)
    images, relu = keras.Input((32, 32, 3)), layers.ReLU()
    x = images / 127.5 - 1.0
    for number in range(3):
        x = relu(layers.Conv2D(4 + number, 3, 2, padding="same", name=f"conv{number}")(x))
    network = keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    cut = cut_at_roi_pooling(network, stride=4)
    batch = images_like(network)
    expected = np.maximum(keras.Model(images, network.get_layer("conv1").output)(batch), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(cut.convolutions(batch), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# --- models within models ---------------------------------------------------------------------------------------------


def wrapped_in_sequential(base):
    return keras.Sequential([keras.Input((64, 64, 3)), base, layers.GlobalAveragePooling2D(), layers.Dense(5)])


def wrapped_in_functional(base):
    images = keras.Input((64, 64, 3))
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(images), training=False)
    return keras.Model(images, layers.Dense(5)(layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))))


def wrapped_twice(base):
    return keras.Sequential([keras.Input((64, 64, 3)), keras.Sequential([base]), layers.Flatten(), layers.Dense(5)])


@pytest.mark.parametrize("wrap", [wrapped_in_sequential, wrapped_in_functional, wrapped_twice])
def test_a_network_within_a_model_is_cut_inside(wrap):
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(64, 64, 3), alpha=0.35)
    network = wrap(base)
    cut = cut_at_roi_pooling(network)
    assert (cut_layer(cut), cut.strides) == ("block_12_add", [16])
    images = images_like(network)
    preprocessed = images / np.float32(127.5) - 1 if wrap is wrapped_in_functional else images
    expected = keras.Model(base.input, base.get_layer("block_12_add").output)(preprocessed)
    np.testing.assert_allclose(cut.convolutions(images), expected, atol=1e-5)


def nested_small_cnn():
    return keras.Sequential([keras.Input((32, 32, 3)), small_cnn()])


@pytest.mark.parametrize("make", [small_cnn, nested_small_cnn, residual_network])
def test_the_given_network_is_left_as_it_was(make):
    network = make()
    images, config = images_like(network), network.get_config()
    scores, weights = network(images).numpy(), network.get_weights()
    cut = cut_at_roi_pooling(network, stride=2)
    for model in (cut.convolutions, with_any_image_size(cut.convolutions, "copy")):
        model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
        model.trainable = False
    for layer in cut.fc_layers:
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    assert network.get_config() == config
    for found, before in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(found, before)
    assert all(variable.trainable for variable in network.trainable_variables)
    np.testing.assert_array_equal(network(images), scores)


# --- what cannot be split ---------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(4, 3)

    def call(self, images):
        return self.convolution(images)


def two_inputs():
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, layers.Add()(inputs))


@pytest.mark.parametrize(
    "network",
    [
        Subclassed(),
        keras.Sequential([keras.Input((32, 32, 3)), Subclassed(), layers.GlobalAveragePooling2D(), layers.Dense(2)]),
        keras.Sequential([layers.Conv2D(4, 3)]),
        two_inputs(),
    ],
    ids=["subclass", "subclass within", "not built", "two inputs"],
)
def test_what_is_no_graph_from_one_image_is_an_input_error(network):
    with pytest.raises(
        InputError, match=r"^backbone: found (Subclassed|Sequential|Functional) without one image input"
    ):
        cut_at_roi_pooling(network)


def test_a_stride_that_the_network_has_not_lists_those_it_has():
    with pytest.raises(InputError, match=r"^stride: found no feature map of stride 16 .* expected one of \[1, 2, 4\]"):
        cut_at_roi_pooling(globally_pooled(4, 6, 8))
