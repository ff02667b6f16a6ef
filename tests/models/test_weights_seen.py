"""Changes of weights, on small networks."""

import keras
import numpy as np
import pytest

from tf_fast_rcnn.models.weights_seen import WeightsSeen

layers = keras.layers

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
        assert seen.have_changed()  # at first
        network.predict(batch[0], verbose=0)
        assert not seen.have_changed()
        network.fit(*batch, verbose=0)
        assert seen.have_changed()
        assert not seen.have_changed()


def test_other_changes_are_seen():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1)])
    seen = WeightsSeen(network.variables)
    weights = network.get_weights()
    assert seen.have_changed()
    # The same values again are no change.
    network.set_weights(weights)
    assert not seen.have_changed()
    network.layers[0].kernel.assign_add(np.eye(4, 3) * 1e-6)
    assert seen.have_changed()
    network.set_weights(weights)
    assert seen.have_changed()
    network.layers[1].bias.value.assign([1.0])
    assert seen.have_changed()
    assert not seen.have_changed()


def test_no_variables():
    seen = WeightsSeen([])
    assert seen.have_changed()
    assert not seen.have_changed()
