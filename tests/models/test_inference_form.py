"""The inference form of networks against the networks themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.inference_form import WeightsSeen, folded, folds, with_constants
from tf_fast_rcnn.models.parts import stages

layers = keras.layers


def with_random_weights(network, seed=0):
    """Sets all weights, including the statistics of batch normalisation, to random values."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        if variable.path.endswith(("variance", "gamma")):
            variable.assign(rng.uniform(0.3, 3, variable.shape))
        else:
            variable.assign(rng.normal(0, 1 / np.sqrt(max(1, np.prod(variable.shape[:-1]))), variable.shape))
    return network


def images(seed=0, channels=3):
    return np.random.default_rng(seed).normal(size=(2, 13, 11, channels)).astype(np.float32)


def normalizations(network):
    return [layer.name for layer in network._flatten_layers() if type(layer) is layers.BatchNormalization]


def assert_same(network, other, inputs):
    for expected, found in zip(
        keras.tree.flatten(network(inputs, training=False)), keras.tree.flatten(other(inputs)), strict=True
    ):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@given(
    kind=st.sampled_from([layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D]),
    use_bias=st.booleans(),
    scale=st.booleans(),
    center=st.booleans(),
    strides=st.sampled_from([1, 2]),
    padding=st.sampled_from(["same", "valid"]),
    multiplier=st.sampled_from([1, 2]),
)
@settings(max_examples=30, deadline=None)
def test_a_convolution_includes_its_normalization(kind, use_bias, scale, center, strides, padding, multiplier):
    several = {} if kind is layers.Conv2D else {"depth_multiplier": multiplier}
    filters = () if kind is layers.DepthwiseConv2D else (5,)
    inputs = keras.Input((None, None, 3))
    maps = kind(*filters, kernel_size=3, strides=strides, padding=padding, use_bias=use_bias, **several)(inputs)
    maps = layers.ReLU(6.0)(layers.BatchNormalization(scale=scale, center=center, epsilon=0.01)(maps))
    network = with_random_weights(keras.Model(inputs, maps))
    result = folded(network)
    assert folds(network)
    assert not normalizations(result)
    assert_same(network, result, images())


def conv(**options):
    return layers.Conv2D(3, 3, padding="same", name="conv", **options)


def after_activation(inputs):
    return layers.BatchNormalization()(conv(activation="relu")(inputs))


def map_used_twice(inputs):
    maps = conv()(inputs)
    return layers.Add()([layers.BatchNormalization()(maps), maps])


def map_is_an_output(inputs):
    maps = conv()(inputs)
    return [maps, layers.BatchNormalization()(maps)]


def shared_convolution(inputs):
    shared = conv()
    return layers.Add()([layers.BatchNormalization()(shared(inputs)), shared(2 * inputs)])


def shared_normalization(inputs):
    shared = layers.BatchNormalization()
    return layers.Add()([shared(conv()(inputs)), shared(2 * inputs)])


def over_rows(inputs):
    return layers.BatchNormalization(axis=1)(conv()(inputs))


class Standardized(layers.Conv2D):
    """A convolution whose weights are not what it multiplies by."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / keras.ops.std(kernel))


def subclass(inputs):
    return layers.BatchNormalization()(Standardized(3, 3, name="conv")(inputs))


@pytest.mark.parametrize(
    "build",
    [
        after_activation,
        map_used_twice,
        map_is_an_output,
        shared_convolution,
        shared_normalization,
        over_rows,
        subclass,
    ],
)
def test_what_cannot_be_folded_stays(build):
    inputs = keras.Input((13, 11, 3))
    network = with_random_weights(keras.Model(inputs, build(inputs)))
    assert not folds(network)
    result = folded(network)
    assert len(normalizations(result)) == 1
    assert_same(network, result, images())


def test_models_inside_a_model():
    inner = keras.Input((None, None, 3))
    block = keras.Model(inner, layers.BatchNormalization()(conv()(inner)), name="block")
    inputs = keras.Input((None, None, 3))
    network = with_random_weights(keras.Model(inputs, layers.Rescaling(0.5)(block(layers.ReLU()(inputs)))))
    result = folded(network)
    assert [layer.name for layer in result.layers[1:]] == [layer.name for layer in network.layers[1:]]
    assert not normalizations(result)
    assert_same(network, result, images())


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("efficientnet_lite0", {"stride": (8, 16, 32), "lateral_channels": 8}, 0),
        ("resnet50", {}, 0),
        ("mobilenetv2", {"stride": 16}, 0),
    ],
)
def test_detectors(name, options, left):
    model = with_random_weights(frcnn.fast_rcnn(name, 3, weights=None, **options))
    parts = stages(model)
    inputs = np.random.default_rng(1).uniform(0, 255, (1, 96, 128, 3)).astype(np.float32)
    convolve = folded(parts.convolve)
    assert len(normalizations(convolve)) == left
    assert_same(parts.convolve, convolve, inputs)
    assert_same(parts.convolve, with_constants(convolve), inputs)
    pooled = np.random.default_rng(2).normal(size=(1, 5, *parts.classify.input.shape[2:])).astype(np.float32)
    classify = folded(parts.classify)
    assert not normalizations(classify)
    for output, expected in parts.classify(pooled, training=False).items():
        np.testing.assert_allclose(classify(pooled)[output], expected, atol=1e-4, rtol=1e-4)


def test_the_network_stays_as_it_is():
    inputs = keras.Input((13, 11, 3))
    network = with_random_weights(keras.Model(inputs, layers.BatchNormalization()(conv()(inputs))))
    weights, config = network.get_weights(), network.get_config()
    folded(network)
    assert network.get_config() == config
    for before, after in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert all(len(layer._inbound_nodes) == 1 for layer in network.layers)


def test_constants_do_not_follow_the_weights():
    inputs = keras.Input((13, 11, 3))
    network = with_random_weights(keras.Model(inputs, conv()(inputs)))
    infer, before = with_constants(network), network(images())
    infer(images())
    with_random_weights(network, seed=1)
    np.testing.assert_array_equal(infer(images()), before)
    # Not even in a new graph, for another shape.
    np.testing.assert_allclose(infer(images()[:1]), before[:1], atol=1e-5)
    graph = infer.get_concrete_function(tf.TensorSpec([1, 13, 11, 3])).graph
    assert not graph.captures


OPTIMIZERS = [keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.1)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "momentum", "adam"])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_changes_by_training_are_seen(optimizer, run_eagerly):
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    network.compile(type(optimizer).from_config(optimizer.get_config()), "mse", run_eagerly=run_eagerly)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(8, 4)), rng.normal(size=(8, 1))
    for _ in range(2):
        seen = WeightsSeen(network.variables)
        network.predict(batch[0], verbose=0)
        assert seen.are_current()
        network.fit(*batch, verbose=0)
        assert not seen.are_current()


def test_other_changes_are_seen():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    seen = WeightsSeen(network.variables)
    weights = network.get_weights()
    # The same values again are no change.
    network.set_weights(weights)
    assert seen.are_current()
    network.layers[0].kernel.assign_add(np.eye(4, 3) * 1e-6)
    assert not seen.are_current()
    network.set_weights(weights)
    assert seen.are_current()
    network.layers[1].bias.value.assign([1.0])
    assert not seen.are_current()
