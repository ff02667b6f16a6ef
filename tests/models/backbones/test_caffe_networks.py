"""The paper's networks compared with NumPy, layer by layer, with weights from a `.caffemodel` file."""

import keras
import numpy as np
import pytest
from caffe_files import write
from caffe_numpy import POOLED, SHRINK, TEXTS, convolutional_maps, hidden_units, max_pool, random_weights, softmax

from tf_fast_rcnn import InputError, fast_rcnn
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling, with_any_image_size
from tf_fast_rcnn.models.backbones import backbone_names, caffe, load_backbone
from tf_fast_rcnn.models.backbones.caffe import CAFFE_NETWORKS, caffe_preprocessing


def small(name, **options):
    return CAFFE_NETWORKS[name](width=1 / SHRINK, **options)


def image_of(height, width, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.float32)


@pytest.fixture(params=TEXTS)
def name(request):
    return request.param


@pytest.fixture
def weights(name):
    return random_weights(name)


@pytest.fixture
def network(name, weights, tmp_path):
    return small(name, weights=write(tmp_path / f"{name}.caffemodel", weights))


# Odd, even and multiples of 16: pooling rounds up, convolutions with strides round down.
@pytest.mark.parametrize("size", [(64, 96), (75, 118), (61, 59)])
def test_every_layer_is_what_numpy_computes(name, weights, network, size):
    image = image_of(*size)
    expected = convolutional_maps(name, weights, image)
    convolutions = with_any_image_size(cut_at_roi_pooling(network).convolutions, "convolutions")
    names = [layer for layer in expected if layer != "pool5"]
    found = keras.Model(convolutions.input, [convolutions.get_layer(layer).output for layer in names])(
        caffe_preprocessing()(image[None])
    )
    assert names[-1] == convolutions.layers[-1].name
    for layer, values in zip(names, found, strict=True):
        expected_values = expected[layer].transpose(1, 2, 0)
        np.testing.assert_allclose(values[0], expected_values, rtol=1e-3, atol=1e-3, err_msg=layer)
        assert np.mean(expected_values > 0) > 0.2, layer  # ReLU does not zero most of it


def test_probabilities_are_what_numpy_computes(name, weights, network):
    image = image_of(*network.input_shape[1:3])
    pooled = convolutional_maps(name, weights, image)["pool5"]
    assert pooled.shape[1:] == (POOLED[name], POOLED[name])
    weight, bias = weights["fc8"]
    expected = softmax(weight @ hidden_units(weights, pooled.ravel()) + bias)
    found = network(caffe_preprocessing()(image[None]))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert expected.max() > 2 / 1000


def test_caffenet_of_imagenet_has_the_same_weights_without_padding(tmp_path):
    """227x227 pixels, 13x13 cells, 6x6 after pool5, as in BVLC's reference network."""
    weights = random_weights("caffenet")
    network = small("caffenet", weights=write(tmp_path / "s.caffemodel", weights), aligned=False)
    assert network.input_shape == (None, 227, 227, 3)
    found = keras.Model(network.input, [network.get_layer(name).output for name in ("conv1", "pool1", "pool2")])
    conv1, pool1, pool2 = (values[0].numpy() for values in found(caffe_preprocessing()(image_of(227, 227)[None])))
    assert (conv1.shape[:2], pool1.shape[:2], pool2.shape[:2]) == ((55, 55), (27, 27), (13, 13))
    np.testing.assert_array_equal(pool1, normalised_input(network, "norm1", conv1))
    aligned = small("caffenet", weights=tmp_path / "s.caffemodel")
    for layer, other in zip(network.layers, [x for x in aligned.layers if "pad" not in x.name], strict=True):
        for values, others in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(values, others)


def normalised_input(network, norm, conv1):
    """CaffeNet pools before it normalises: the input of `norm` is the pooled map of conv1."""
    assert network.get_layer(norm).input is network.get_layer("pool1").output
    return max_pool(conv1.transpose(2, 0, 1), kernel=3, stride=2).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("name", "cells"), [("caffenet", (39, 64)), ("vgg_cnn_m_1024", (36, 61)), ("caffe_vgg16", (38, 63))]
)
def test_cells_of_the_papers_images(name, cells):
    """Feature-map cells of the last convolution at 600x1000 pixels, computed by hand from the prototxts."""
    cut = cut_at_roi_pooling(small(name))
    assert (cut.strides, cut.roi_output_size) == ([16], (POOLED[name], POOLED[name]))
    convolutions = with_any_image_size(cut.convolutions, "convolutions")
    assert convolutions.compute_output_shape((1, 600, 1000, 3))[0][1:3] == cells


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("caffenet", 60_965_224),
        ("vgg_cnn_m_1024", 87_250_536),
        pytest.param("caffe_vgg16", 138_357_544, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_as_many_as_published(name, parameters):
    """S and L as published; M summed by hand over the layers in the prototxt."""
    assert load_backbone(name, weights=None).network.count_params() == parameters


def test_names_and_preprocessing():
    assert set(TEXTS) <= set(backbone_names())
    backbone = load_backbone("VGG-CNN-M-1024", weights=None)
    assert (backbone.name, backbone.network.name) == ("vgg_cnn_m_1024", "vgg_cnn_m_1024")
    assert [backbone.network.get_layer(name).units for name in ("fc6", "fc7", "fc8")] == [4096, 1024, 1000]
    pixel = np.float32([[[[10, 20, 30]]]])
    np.testing.assert_allclose(backbone.preprocessing(pixel), [[[[30 - 102.9801, 20 - 115.9465, 10 - 122.7717]]]])


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("caffenet", ["conv1"]),
        ("vgg_cnn_m_1024", ["conv1"]),
        ("caffe_vgg16", ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]),
    ],
)
def test_the_layers_that_the_paper_freezes(name, frozen):
    convolutions = fast_rcnn(small(name), 2).get_layer("convolutions")
    assert [layer.name for layer in convolutions.layers if layer.weights and not layer.trainable] == frozen


def test_imagenet_weights_are_kerass_for_vgg16_alone(monkeypatch):
    published = small("caffe_vgg16")
    monkeypatch.setattr(
        caffe,
        "build_application",
        lambda application, weights: {("VGG16", "imagenet"): published}[application.name, weights],
    )
    for found, expected in zip(
        small("caffe_vgg16", weights="imagenet").get_weights(), published.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"^caffenet: found no ImageNet weights to download; .* pass its \.caffemodel"):
        small("caffenet", weights="imagenet")


def test_weights_of_keras_files(tmp_path):
    source = small("caffenet")
    source.save_weights(tmp_path / "s.weights.h5")
    loaded = small("caffenet", weights=tmp_path / "s.weights.h5")
    for found, expected in zip(loaded.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
