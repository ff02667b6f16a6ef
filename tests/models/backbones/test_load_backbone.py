import keras
import numpy as np
import pytest

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones import Preprocessing, backbone_names, load_backbone


def own_network():
    images = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(images))
    return keras.Model(images, keras.layers.Dense(2)(pooled), name="own")


@pytest.mark.parametrize("spelling", ["mobilenet_v2", "mobilenetv2", "MobileNetV2", "MOBILENET-V2"])
def test_any_spelling_of_a_keras_application(spelling):
    backbone = load_backbone(spelling, weights=None)
    assert backbone.name == "mobilenetv2"
    assert backbone.network.output_shape == (None, 1000)
    np.testing.assert_array_equal(backbone.preprocessing(np.float32([[[[0, 127.5, 255]]]])), [[[[-1, 0, 1]]]])


@pytest.mark.parametrize("spelling", ["efficientnet_lite0", "EfficientNet-Lite0"])
def test_efficientnet_lite0(spelling):
    backbone = load_backbone(spelling, weights=None)
    assert (backbone.name, backbone.network.name) == ("efficientnet_lite0", "efficientnet_lite0")
    assert backbone.network.input_shape == (None, None, None, 3)
    assert backbone.preprocessing.mean == (127.0, 127.0, 127.0)


def test_vgg16_keeps_its_fully_connected_layers():
    backbone = load_backbone("vgg16", weights=None)
    assert [layer.name for layer in backbone.network.layers[-5:]] == [
        "block5_pool",
        "flatten",
        "fc1",
        "fc2",
        "predictions",
    ]
    assert backbone.network.get_layer("fc1").kernel.shape == (7 * 7 * 512, 4096)
    assert backbone.preprocessing.channel_order == "bgr"


def test_an_own_network_is_returned_as_it_is_and_sees_rgb():
    network = own_network()
    backbone = load_backbone(network)
    assert (backbone.name, backbone.network) == ("own", network)
    images = np.random.default_rng(0).uniform(0, 255, (1, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(backbone.preprocessing(images), images)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", own_network()])
def test_a_given_preprocessing_replaces_the_prescribed_one(backbone):
    preprocessing = Preprocessing("bgr")
    assert load_backbone(backbone, weights=None, preprocessing=preprocessing).preprocessing is preprocessing


def test_an_unknown_name_lists_all_and_close_ones_first():
    with pytest.raises(InputError) as error:
        load_backbone("restnet-50")
    message = str(error.value)
    assert message.startswith("backbone: found 'restnet-50'; expected one of ResNet50, ")
    assert "\n" not in message
    assert all(name in message for name in backbone_names())


@pytest.mark.parametrize("backbone", [16, None, keras.layers.Dense(3)])
def test_what_is_no_name_and_no_model_is_an_input_error(backbone):
    with pytest.raises(InputError, match=r"^backbone: found .* or pass a keras\.Model$"):
        load_backbone(backbone)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_an_absent_weights_file_is_an_input_error(name, tmp_path):
    with pytest.raises(InputError, match=r"^weights: found .*none\.h5', which is not a file"):
        load_backbone(name, weights=tmp_path / "none.h5")


def test_a_weights_file_for_an_own_network_is_an_input_error():
    with pytest.raises(InputError, match=r"^weights: found 'w\.h5' with a keras\.Model"):
        load_backbone(own_network(), weights="w.h5")
