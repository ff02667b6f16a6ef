import keras
import numpy as np
import pytest

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.models.backbones.keras_applications import Application, build_application, keras_applications


def test_every_network_brings_its_own_modules_preprocessing():
    found = keras_applications()
    assert len(found) >= 38
    for name, module in {
        "VGG16": "vgg16",
        "ResNet50": "resnet",
        "ResNet50V2": "resnet_v2",
        "MobileNetV3Large": "mobilenet_v3",
        "EfficientNetV2B0": "efficientnet_v2",
        "NASNetMobile": "nasnet",
    }.items():
        assert found[name].construct is getattr(keras.applications, name)
        assert found[name].preprocess_input is getattr(keras.applications, module).preprocess_input


@pytest.mark.parametrize("kind", [Exception, ValueError, OSError])
def test_a_failed_download_is_one_input_error(kind):
    def fail(weights, include_top):
        assert (weights, include_top) == ("imagenet", True)
        raise kind("URL fetch failure on somewhere\nand a second line")

    with pytest.raises(InputError, match="--weights FILE") as error:
        build_application(Application("VGG16", fail, None), "imagenet")
    assert str(error.value).startswith("VGG16: found no ImageNet weights (URL fetch failure on somewhere)")
    assert "\n" not in str(error.value)


def test_weights_from_a_file(tmp_path):
    application = keras_applications()["MobileNet"]
    source = build_application(application, None)
    source.save_weights(tmp_path / "mobilenet.weights.h5")
    images = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    loaded = build_application(application, tmp_path / "mobilenet.weights.h5")
    np.testing.assert_array_equal(loaded(images), source(images))


def test_efficientnet_by_path_is_efficientnet_downloaded(tmp_path, monkeypatch):
    """Keras adds a rescaling layer if it downloads the file; the same file loaded by path must be equivalent."""
    deviation = np.float32([0.229, 0.224, 0.225])
    published = keras.applications.EfficientNetB0(weights=None)
    normalisation = next(layer for layer in published.layers if isinstance(layer, keras.layers.Normalization))
    normalisation.adapt_mean.assign([0.485, 0.456, 0.406])
    normalisation.adapt_variance.assign(deviation)
    path = tmp_path / "efficientnetb0.h5"
    published.save(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))

    images = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    downloaded = keras.applications.EfficientNetB0(weights="imagenet")
    by_path = build_application(keras_applications()["EfficientNetB0"], path)
    for network in (downloaded, by_path):
        normalised = keras.Model(network.input, network.get_layer("stem_conv_pad").input)(images)
        np.testing.assert_allclose(normalised, (images / 255 - [0.485, 0.456, 0.406]) / deviation, atol=1e-5)
    np.testing.assert_allclose(by_path(images), downloaded(images), rtol=1e-4)
