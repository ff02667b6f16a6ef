"""The first pass over RoIs against the network with a kernel truncated by NumPy's SVD."""

import numpy as np
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.parts import stages
from tf_fast_rcnn.models.screening import screening


def truncated(kernel, rank):
    left, values, right = np.linalg.svd(kernel.astype(np.float64), full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def model_with_decay(tiny_network, units=(64, 16), decay=0.7, **options):
    """A detector whose fc6 has singular values that fall by a factor, which makes subspaces well defined."""
    model = frcnn.fast_rcnn(tiny_network, 3, stride=8, roi_output_size=(3, 3), fc_units=units, **options)
    kernel, bias = model.get_layer("fc6").get_weights()
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    values = 8 * decay ** np.arange(len(values))
    bias = np.random.default_rng(0).normal(size=bias.shape)
    model.get_layer("fc6").set_weights([(left * values) @ right, bias])
    for name in ("fc7", "class_logits"):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel / kernel.std(), bias])
    return model


@pytest.fixture(scope="module")
def decaying(tiny_backbone):
    return model_with_decay(tiny_backbone)


def pooled_rois(classify, number=7):
    return np.random.default_rng(1).normal(size=(number, *classify.input.shape[2:])).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_the_first_layer_is_truncated(decaying, rank):
    classify = stages(decaying).classify
    pooled = pooled_rois(classify)
    found = screening(classify, rank)(tf.constant(pooled)).numpy()
    hidden = pooled.reshape(len(pooled), -1)
    for name in ("fc6", "fc7", "class_logits"):
        kernel, bias = decaying.get_layer(name).get_weights()
        hidden = hidden @ (truncated(kernel, rank) if name == "fc6" else kernel) + bias
        hidden = hidden if name == "class_logits" else np.maximum(hidden, 0)
    np.testing.assert_allclose(found, hidden, atol=2e-3 * np.abs(hidden).max())


def test_a_layer_of_low_rank_is_exact(tiny_backbone):
    model = model_with_decay(tiny_backbone, decay=0.3)
    kernel, bias = model.get_layer("fc6").get_weights()
    model.get_layer("fc6").set_weights([truncated(kernel, 4), bias])
    classify = stages(model).classify
    pooled = pooled_rois(classify)
    expected = classify(pooled[None], training=False)["class_logits"][0]
    np.testing.assert_allclose(screening(classify, 5)(tf.constant(pooled)), expected, atol=1e-3)


def test_no_rois(decaying):
    classify = stages(decaying).classify
    assert screening(classify, 4)(tf.constant(pooled_rois(classify, 0))).shape == (0, 4)


def test_half_types(decaying):
    classify = stages(decaying).classify
    pooled = pooled_rois(classify)
    exact, half = (screening(classify, 8)(tf.cast(pooled, dtype)).numpy() for dtype in (tf.float32, tf.bfloat16))
    assert 1e-6 < np.abs(half - exact).max() < 0.1 * np.abs(exact).max()


def test_networks_for_which_it_would_not_be_cheaper(decaying, tiny_backbone):
    assert screening(stages(decaying).classify, 32) is not None
    assert screening(stages(decaying).classify, 33) is None
    assert screening(stages(frcnn.compress(decaying, fc6=20)).classify, 4) is None
    # Compression of another layer does not matter.
    assert screening(stages(frcnn.compress(decaying, fc7=8)).classify, 4) is not None
    without = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, fc_units=())
    assert screening(stages(without).classify, 4) is None
