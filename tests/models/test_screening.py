"""The first pass over RoIs against the network with a kernel truncated by NumPy's SVD."""

import numpy as np
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.models.parts import stages
from tf_fast_rcnn.models.screening import Screening, can_screen


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


def screened(classify, rank, pooled):
    assert can_screen(classify, rank)
    screening = Screening(classify, rank)
    screening.update()
    return screening(tf.constant(pooled)).numpy()


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_the_first_layer_is_truncated(decaying, rank):
    classify = stages(decaying).classify
    pooled = pooled_rois(classify)
    found = screened(classify, rank, pooled)
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
    np.testing.assert_allclose(screened(classify, 5, pooled), expected, atol=1e-3)


def test_no_rois(decaying):
    classify = stages(decaying).classify
    assert screened(classify, 4, pooled_rois(classify, 0)).shape == (0, 4)


def test_new_weights(tiny_backbone):
    classify = stages(model_with_decay(tiny_backbone)).classify
    pooled = pooled_rois(classify)
    screening = Screening(classify, 8)
    screening.update()
    before = screening(pooled).numpy()
    kernel, bias = classify.get_layer("fc6").get_weights()
    classify.get_layer("fc6").set_weights([2 * kernel, bias + 1])
    np.testing.assert_array_equal(screening(pooled), before)
    screening.update()
    np.testing.assert_allclose(screening(pooled), screened(classify, 8, pooled), atol=1e-5)
    assert np.abs(screening(pooled) - before).max() > 1
    assert {id(variable) for variable in screening.source} == {id(each) for each in classify.get_layer("fc6").variables}


def test_networks_for_which_it_would_not_be_cheaper(decaying, tiny_backbone):
    assert can_screen(stages(decaying).classify, 32)
    assert not can_screen(stages(decaying).classify, 33)
    assert not can_screen(stages(frcnn.compress(decaying, fc6=20)).classify, 4)
    # Compression of another layer does not matter.
    assert can_screen(stages(frcnn.compress(decaying, fc7=8)).classify, 4)
    without = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, fc_units=())
    assert not can_screen(stages(without).classify, 4)
