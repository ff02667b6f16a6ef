"""Proposals computed in the exported graph, compared with those of `compute_proposals`."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_detection import some_image

from tf_fast_rcnn.data.proposals import DenseBoxes, FileProposals, ProposalSettings, compute_proposals, dense_grid
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.graph_proposals import check_graph_proposals, graph_proposals

SIZES = tuple(map(tuple, np.random.default_rng(0).uniform(0.1, 1.4, (20, 2))))
DENSE = {
    "common": ProposalSettings(dense=dense_grid(), min_size=0.0),
    "fitted": ProposalSettings(dense=DenseBoxes(SIZES, 0.35), min_size=0.2),
    # Sides that are multiples of the steps, for which a rounding error would change the number of boxes.
    "in tiles": ProposalSettings(dense=DenseBoxes(SIZES, 0.5), min_size=0.1, tiles=Tiles(250, 0.5)),
    "only in tiles": ProposalSettings(dense=DenseBoxes(SIZES, 0.5), min_size=0.1, tiles=Tiles(250, 0.5, False)),
    "even": ProposalSettings(dense=dense_grid([0.15, 0.25, 0.5], [1.0], 0.4), min_size=0.1),
}


def in_graph(chosen, max_proposals=100_000):
    """`graph_proposals` as a graph, with TensorFlow's graph optimisations."""

    def propose(image):
        return graph_proposals(lambda: image, tf.shape(image)[:2], chosen, max_proposals)

    return tf.function(propose, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)], autograph=False)


GRAPHS = {name: in_graph(chosen) for name, chosen in DENSE.items()}


def test_dense_boxes_by_hand():
    # As in data/test_dense.py: boxes of side 1 on an axis of length 2 with step 0.5; a single box on the other axis.
    chosen = ProposalSettings(dense=DenseBoxes(((1.0, 1.0),), 0.5), min_size=0.6)
    found = in_graph(chosen)(np.zeros((2, 1, 3), np.uint8))
    down = [[0, 1], [0.5, 1.5], [1, 2]]
    np.testing.assert_allclose(found * [2, 1, 2, 1], [[top, 0, bottom, 1] for top, bottom in down])


@pytest.mark.parametrize("name", DENSE)
@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 1300), width=st.integers(1, 1300))
def test_dense_boxes_are_those_of_training(name, height, width):
    # Limits the number of boxes to tens of thousands.
    height, width = min(height, 12 * width), min(width, 12 * height)
    image = np.broadcast_to(np.uint8(0), (height, width, 3))
    np.testing.assert_array_equal(GRAPHS[name](image), compute_proposals(image, DENSE[name]))


def test_an_image_of_too_many_dense_boxes_is_refused_before_they_are_made():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"proposals: found .* expected at most 10000; send"):
        in_graph(DENSE["common"], 10_000)(np.zeros((1, 16384, 3), np.uint8))


@pytest.mark.parametrize("mode", ["fast", "quality"])
@pytest.mark.parametrize("dense", [None, dense_grid()])
def test_selective_search_is_that_of_training(mode, dense):
    chosen = ProposalSettings(mode, 300, dense, min_size=0.1, seed=3)
    image = some_image(120, 90, 5)
    expected = compute_proposals(image, chosen)
    assert len(expected) > 30
    np.testing.assert_array_equal(in_graph(chosen)(image), expected)


def test_a_box_as_small_as_the_limit_is_kept():
    """The op takes float32, and float32(0.054) is greater than 0.054, which is 27 of 500 pixels."""
    image = np.full((500, 500, 3), 200, np.uint8)
    image[100:127, 200:260] = [10, 60, 120]
    chosen = ProposalSettings("fast", min_size=0.054)
    expected = compute_proposals(image, chosen)
    heights = np.round((expected[:, 2] - expected[:, 0]) * 500)
    assert 27 in heights
    np.testing.assert_array_equal(in_graph(chosen)(image), expected)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (ProposalSettings("fast", implementation="opencv"), "found selective search with the implementation 'opencv'"),
        (ProposalSettings("fast", tiles=Tiles(240)), "found selective search in tiles"),
        (FileProposals("boxes.npz", "yxyx-relative", None, "0"), "found proposals from a file"),
    ],
)
def test_what_a_graph_cannot_compute(chosen, message):
    with pytest.raises(InputError, match=message):
        check_graph_proposals(chosen)
