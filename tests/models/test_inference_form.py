"""Weights as constants, and changes of weights, on small networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_fast_rcnn.models.inference_form import WeightsSeen, with_constants

layers = keras.layers


def with_random_weights(network, seed=0):
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(size=weight.shape) for weight in network.get_weights()])
    return network


def images(seed=0):
    return np.random.default_rng(seed).normal(size=(2, 13, 11, 3)).astype(np.float32)


def conv():
    return layers.Conv2D(3, 3, padding="same", name="conv")


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
