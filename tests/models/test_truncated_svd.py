"""Truncated SVD of fully connected layers, against NumPy's SVD."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_detection import some_image, some_proposals

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError
from tf_fast_rcnn.models.truncated_svd import (
    factor_ranks,
    factorize,
    fully_connected_names,
    singular_vectors,
    with_factors_of,
)

INPUTS = {
    "images": np.float32(some_image())[None],
    "rois": some_proposals(7)[None] * np.float32([90, 120, 90, 120]),
}


@pytest.fixture(scope="module")
def model(tiny_backbone):
    """fc6 of 72 x 12 and fc7 of 12 x 10, 3 classes; biases that are not 0."""
    keras.utils.set_random_seed(3)
    made = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, roi_output_size=(3, 3), fc_units=(12, 10), seed=5)
    for name in ("fc6", "fc7", "class_logits", "box_regression"):
        kernel, bias = made.get_layer(name).get_weights()
        made.get_layer(name).set_weights([kernel, np.random.default_rng(0).normal(size=bias.shape)])
    return made


def truncated(kernel, rank):
    """The nearest kernel of that rank, by NumPy's SVD."""
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 20),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-4, 1.0, 1e3]),
    deficient=st.booleans(),
)
def test_singular_vectors_are_numpys(rows, columns, seed, scale, deficient):
    kernel = np.random.default_rng(seed).normal(size=(rows, columns)) * scale
    if deficient:
        kernel[:, columns // 2 :] = 0.0
    squares, vectors = singular_vectors(kernel)
    values = np.zeros(columns)
    values[: min(rows, columns)] = np.linalg.svd(kernel, compute_uv=False)
    np.testing.assert_allclose(squares, values**2, atol=1e-9 * scale**2 * columns * rows)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(columns), atol=1e-9)
    for rank in range(1, min(rows, columns) + 1):
        kept = kernel @ vectors[:, :rank] @ vectors[:, :rank].T
        error = np.sqrt(max(0.0, (values[rank:] ** 2).sum()))
        assert np.linalg.norm(kernel - kept) == pytest.approx(error, abs=1e-6 * scale)


@pytest.mark.parametrize(
    "ranks", [{"fc6": 5}, {"fc6": 1, "fc7": 10}, {"class_logits": 2, "box_regression": 4}], ids=str
)
def test_a_model_computes_with_numpys_truncated_weights(model, ranks):
    small = factorize(model, ranks)
    expected = keras.models.clone_model(model)
    expected.set_weights(model.get_weights())
    for name, rank in ranks.items():
        kernel, bias = model.get_layer(name).get_weights()
        expected.get_layer(name).set_weights([truncated(kernel, rank), bias])
    found, expected, original = (each(INPUTS, training=False) for each in (small, expected, model))
    for output in ("class_logits", "box_deltas"):
        np.testing.assert_allclose(found[output], expected[output], atol=1e-5)
    assert np.abs(expected["class_logits"] - original["class_logits"]).max() > 1e-3


def test_two_layers_are_v_without_a_bias_and_u_with_the_activation(model):
    small = factorize(model, {"fc6": 5, "class_logits": 2})
    first, second = small.get_layer("fc6_v"), small.get_layer("fc6_u")
    assert (first.units, first.use_bias, first.activation) == (5, False, keras.activations.linear)
    assert (second.units, second.use_bias, second.activation) == (12, True, keras.activations.relu)
    kernel, bias = model.get_layer("fc6").get_weights()
    # Section 3.1: the first layer is S V^T, the second U, whose columns are orthonormal.
    lengths = np.linalg.norm(first.get_weights()[0], axis=0)
    np.testing.assert_allclose(lengths, np.linalg.svd(kernel, compute_uv=False)[:5], rtol=1e-5)
    np.testing.assert_allclose(second.get_weights()[0] @ second.get_weights()[0].T, np.eye(5), atol=1e-5)
    np.testing.assert_array_equal(second.get_weights()[1], bias)
    assert small.get_layer("class_logits").units == 4
    assert [layer.name for layer in small.layers if "fc6" in layer.name] == ["fc6_v", "fc6_u", "fc6_dropout"]


def test_names_and_ranks(model):
    assert fully_connected_names(model) == ["fc6", "fc7"]
    small = factorize(model, {"fc7": 3, "box_regression": 2})
    assert fully_connected_names(small) == ["fc6", "fc7"]
    assert factor_ranks(small) == {"fc7": 3, "box_regression": 2}
    assert factor_ranks(model) == {}


def test_a_copy_has_weights_of_its_own(model):
    before = model.get_weights()
    small = factorize(model, {"fc6": 5})
    small.set_weights([weight + 1 for weight in small.get_weights()])
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_layer_that_is_not_tuned_stays_so(model):
    model.get_layer("fc6").trainable = False
    try:
        small = factorize(model, {"fc6": 5})
    finally:
        model.get_layer("fc6").trainable = True
    assert not small.get_layer("fc6_v").trainable
    assert not small.get_layer("fc6_u").trainable


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (
            {"fc8": 5},
            "fc8: found no such fully connected layer; expected one of fc6, fc7, class_logits",
        ),
        ({"convolutions": 5}, "convolutions: found no such fully connected layer"),
        ({"fc6": 0}, "fc6: found t = 0; expected a whole number from 1 to 12"),
        ({"fc6": 13}, "fc6: found t = 13; expected a whole number from 1 to 12"),
        ({"fc7": 2.5}, "fc7: found t = 2.5; expected a whole number from 1 to 10"),
    ],
)
def test_bad_ranks(model, ranks, message):
    with pytest.raises(InputError, match=f"^{message}"):
        factorize(model, ranks)


def test_a_layer_is_not_compressed_twice(model):
    small = factorize(model, {"fc6": 5})
    with pytest.raises(InputError, match=r"^fc6: found a layer that is compressed already \(t = 5\)"):
        factorize(small, {"fc6": 3})
    both = factorize(small, {"fc7": 2})
    assert factor_ranks(both) == {"fc6": 5, "fc7": 2}


def test_a_model_that_takes_over_weights_gets_the_same_layers(model):
    small = factorize(model, {"fc6": 5})
    fresh = with_factors_of(model, small)
    assert [layer.name for layer in fresh.layers] == [layer.name for layer in small.layers]
    assert with_factors_of(model, model) is model
