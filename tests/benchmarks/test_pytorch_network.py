"""The peer in PyTorch is the same network: it gives the same numbers, and learns the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.backbones import Preprocessing, load_backbone
from tf_fast_rcnn.models.parts import stages

torch = pytest.importorskip("torch", reason="PyTorch, a peer of the benchmarks, comes by the extra 'pytorch'")

from tf_fast_rcnn.benchmarks.pytorch_network import (  # noqa: E402
    PyTorchNetwork,
    roi_max_pool,
    roi_max_pool_gradient,
)
from tf_fast_rcnn.benchmarks.pytorch_training import PyTorchTraining  # noqa: E402

# No multiples of the strides: TensorFlow pads these more on one side than on the other.
HEIGHT, WIDTH = 70, 93


def vgg_like():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(16),
            layers.Flatten(),
            layers.Dense(20, "relu", name="fc1"),
            layers.Dense(16, "relu", name="fc2"),
            layers.Dense(5, name="predictions"),
        ]
    )


def efficientnet_like():
    layers = keras.layers
    images = keras.Input((64, 64, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="conv1")(images)
    x = shortcut = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(16, 1, name="expand")(x)))
    x = layers.DepthwiseConv2D(5, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.Conv2D(8, 1, name="conv2")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.DepthwiseConv2D(3, 2, padding="same", name="narrow")(layers.Add()([x, shortcut]))
    return keras.Model(images, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def detector(network, **options):
    """With batch statistics that are not 0 and 1, and scores and boxes that differ from RoI to RoI."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    network = network()
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    preprocessing = Preprocessing("bgr", [100.0, 110.0, 120.0], [1 / 50, 1 / 60, 1 / 70])
    options = {"stride": 4, "roi_output_size": (3, 2), "fc_units": (20,), "dropout": 0.0} | options
    model = frcnn.fast_rcnn(network, 3, preprocessing=preprocessing, **options)
    for name in ("class_logits", "box_regression"):
        layer = model.get_layer(name)
        layer.set_weights([rng.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
    return model


def mini_batch():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, [[HEIGHT], [WIDTH]], (2, 6, 2, 2)), axis=-1)
    rois = corners.transpose(0, 1, 3, 2).reshape(2, 6, 4).astype(np.float32)
    images = rng.uniform(0, 255, (2, HEIGHT, WIDTH, 3)).astype(np.float32)
    labels = np.array([[0, 1, 2, 3, 0, 1], [2, 2, 0, 0, 3, 1]], np.int32)
    return images, rois, labels, rng.normal(0, 0.3, (2, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("network", [vgg_like, efficientnet_like])
def test_every_part_gives_the_same_numbers(network):
    model = detector(network)
    images, rois, *_ = mini_batch()
    parts = stages(model)
    features = keras.tree.flatten(parts.convolve(images))[0].numpy()
    (found,) = keras.tree.flatten(PyTorchNetwork(parts.convolve)(torch.tensor(images)))
    assert features.std() > 0.1
    np.testing.assert_allclose(found.detach().numpy(), features, rtol=1e-4, atol=1e-4)
    pooled = np.asarray(parts.pool(features, rois))
    expected = model({"images": images, "rois": rois})
    outputs = PyTorchNetwork(parts.classify)(torch.tensor(pooled))
    assert set(outputs) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name].detach().numpy(), values, rtol=1e-3, atol=1e-4)


def test_efficientnet_lite0_gives_the_same_features():
    network = load_backbone("efficientnet_lite0").network
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    convolutions = keras.Model(network.input, network.get_layer("block5c_add").output)
    found = PyTorchNetwork(convolutions)(torch.tensor(images)).detach().numpy()
    np.testing.assert_allclose(found, convolutions(images), rtol=1e-3, atol=1e-4)


def test_bfloat16_is_near_float32():
    parts = stages(detector(efficientnet_like))
    images = torch.tensor(mini_batch()[0])
    whole, half = (
        keras.tree.flatten(PyTorchNetwork(parts.convolve).to(dtype)(images))[0].detach().float().numpy()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < np.abs(half - whole).mean() < 0.02 * np.abs(whole).mean()


def test_other_layers_are_refused():
    images = keras.Input((8, 8, 3))
    with pytest.raises(TypeError, match="squash: found a UnitNormalization"):
        PyTorchNetwork(keras.Model(images, keras.layers.UnitNormalization(name="squash")(images)))
    with pytest.raises(TypeError, match="bent: found activation tanh"):
        PyTorchNetwork(keras.Model(images, keras.layers.Dense(2, "tanh", name="bent")(images)))


def random_rois():
    """Some on halves of cells, which C rounds away from zero; some that lie partly or wholly outside of the map."""
    rng = np.random.default_rng(1)
    corners = np.round(rng.uniform(-24, 140, (2, 9, 4)) / 8) * 8
    return np.concatenate([np.minimum(corners[..., :2], corners[..., 2:]), corners[..., 2:]], -1).astype(np.float32)


def test_roi_pooling_and_its_gradient_are_ours():
    rng, rois = np.random.default_rng(2), random_rois()
    features = tf.constant(rng.normal(size=(2, 7, 6, 3)).astype(np.float32))
    arriving = rng.normal(size=(2, 9, 3, 2, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        expected = frcnn.roi_pool(features, rois, (3, 2), 1 / 16, implementation="portable")
    gradient = tape.gradient(expected, features, output_gradients=arriving)
    pooled, argmax = roi_max_pool(torch.tensor(features.numpy()), rois, (3, 2), 1 / 16)
    np.testing.assert_array_equal(pooled.numpy(), expected)
    assert (pooled == 0).any()
    found = roi_max_pool_gradient(torch.tensor(arriving), argmax, (2, 7, 6, 3))
    np.testing.assert_allclose(found.numpy(), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", [vgg_like, efficientnet_like])
def test_steps_of_training_change_the_weights_alike(network):
    model = detector(network, finetune_from="conv2")
    peer = PyTorchTraining(model, learning_rate=0.01)
    before = {layer.name: layer.kernel.numpy() for layer in kernel_layers(model)}
    images, rois, labels, targets = mini_batch()
    model.compile(frcnn.sgd(0.01), frcnn.multi_task_loss(model), jit_compile=False)
    labelled = np.concatenate([labels[..., None], targets], -1)
    for _ in range(3):
        model.train_on_batch({"images": images, "rois": rois}, {"class_logits": labels, "box_deltas": labelled})
        seconds = peer.step(images, rois, labels, targets)
    assert set(seconds) == {"update", "convolutions", "fully connected", "backward"}
    parts = {**peer.convolve.parts, **peer.classify.parts}
    for layer in kernel_layers(model):
        change = layer.kernel.numpy() - before[layer.name]
        found = keras_kernel(parts[layer.name], layer) - before[layer.name]
        assert (np.abs(change).max() > 0) == layer.trainable
        np.testing.assert_allclose(found, change, rtol=1e-3, atol=1e-3 * np.abs(change).max() + 1e-7)


def kernel_layers(model):
    return [layer for layer in [*model.get_layer("convolutions").layers, *model.layers] if hasattr(layer, "kernel")]


def keras_kernel(module, layer):
    weight = next(module.parameters()).detach().numpy()
    if weight.ndim == 2:
        return weight.T
    return weight.transpose((2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0))
