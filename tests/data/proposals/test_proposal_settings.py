import json

import numpy as np
import pytest

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.proposals import compute_proposals, dense_boxes, dense_grid, selective_search
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES, DenseBoxes
from tf_fast_rcnn.data.proposals.settings import DEFAULT_MIN_SIZE, METHODS, ProposalSettings, proposal_settings
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8).repeat(15, axis=0).repeat(15, axis=1)


def dataset(boxes, labels):
    return DetectionDataset("test", ["a", "b"], [ImageRecord("x", "", 100, 200, boxes, labels, np.zeros(len(labels)))])


@pytest.mark.parametrize(
    "settings",
    [
        ProposalSettings(selective_search="fast"),
        ProposalSettings(dense=DenseBoxes(((0.1, 1 / 3), (0.5, 0.7)), 0.35), min_size=0.01, seed=5),
        ProposalSettings("quality", 500, DEFAULT_DENSE_BOXES),
        ProposalSettings("fast", implementation="opencv"),
    ],
)
def test_settings_survive_json(settings):
    assert ProposalSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    "value", [None, [], {}, {"dense": None}, {"dense": {"size": 1}}, {"dense": None, "other": 1}, {"dense": 3}]
)
def test_other_json_is_refused(value):
    with pytest.raises(InputError, match="proposal settings: found"):
        ProposalSettings.from_json(value)


def test_settings_from_before_the_native_search_mean_opencvs():
    old = {"selective_search": "fast", "max_selective_search": 9, "dense": None, "min_size": 0.1, "seed": 3}
    settings = ProposalSettings.from_json(old)
    assert settings == ProposalSettings("fast", 9, None, 0.1, 3, implementation="opencv")
    assert settings.to_json() != ProposalSettings("fast", 9, None, 0.1, 3).to_json()
    expected = selective_search(IMAGE, max_proposals=9, seed=3, implementation="opencv")
    np.testing.assert_array_equal(compute_proposals(IMAGE, settings), expected)


def test_settings_without_selective_search_are_stored_as_before_the_native_one():
    """The names of proposal cache folders depend on the JSON of the settings."""
    old = {"selective_search": None, "max_selective_search": 2000, "min_size": 0.054, "seed": 0}
    settings = ProposalSettings(dense=DEFAULT_DENSE_BOXES, min_size=0.054)
    assert {key: value for key, value in settings.to_json().items() if key != "dense"} == old
    assert ProposalSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="implementation 'matlab'"):
        ProposalSettings("fast", implementation="matlab")
    with pytest.raises(InputError, match="'medium'"):
        ProposalSettings(selective_search="medium")
    with pytest.raises(InputError, match="neither"):
        ProposalSettings()


@pytest.mark.parametrize("method", METHODS)
def test_methods(method):
    settings = proposal_settings(method, dataset([[0.2, 0.2, 0.8, 0.6]], [1]))
    assert (settings.selective_search is not None) == ("selective-search" in method)
    assert (settings.dense is not None) == method.endswith("dense")
    with pytest.raises(InputError, match="found method 'grid'; expected one of dense, selective-search"):
        proposal_settings("grid", dataset([], []))


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        ("dense", None),
        ("selective-search", "fast"),
        ("selective-search-quality+dense", "quality"),
        ("opencv-selective-search+dense", "fast"),
        ("opencv-selective-search-quality", "quality"),
    ],
)
def test_modes_of_selective_search(method, mode):
    settings = proposal_settings(method, dataset([], []), max_selective_search=7)
    assert (settings.selective_search, settings.max_selective_search) == (mode, 7)
    assert settings.implementation == ("opencv" if method.startswith("opencv") else "native")


def test_given_dense_boxes_take_the_place_of_fitted_ones():
    grid = dense_grid([0.02, 0.5], [1, 4], 0.5)
    assert grid == DenseBoxes(((0.02, 0.02), (0.01, 0.04), (0.5, 0.5), (0.25, 1.0)), 0.5)
    settings = proposal_settings("selective-search+dense", dataset([[0.2, 0.2, 0.8, 0.6]], [1]), grid)
    assert settings.dense == grid
    # None of them is dropped because of its size.
    assert settings.min_size == 0.01
    with pytest.raises(InputError, match="found dense boxes for the method selective-search; expected selective-"):
        proposal_settings("selective-search", dataset([], []), grid)


@pytest.mark.parametrize("arguments", [([],), ([0.1], [0]), ([0.1], [1], 0), ([0.1], [1], 2), ([float("inf")],)])
def test_impossible_grids_are_refused(arguments):
    with pytest.raises(InputError, match="dense boxes: found"):
        dense_grid(*arguments)


def test_a_grid_that_would_fill_the_memory_is_refused():
    with pytest.raises(InputError, match=r"found about [0-9]+ boxes in an image; expected 1000000 at most"):
        dense_grid([0.001], [1], 0.1)
    # The number in the message is about right.
    count = len(dense_boxes(100, 100, dense_grid([0.05], [1], 0.2)))
    assert count == pytest.approx((1 + 0.95 / 0.01) ** 2, rel=0.05)


def test_min_size_follows_the_smallest_class_but_not_above_the_default():
    large = [[0.1, 0.1, 0.7, 0.5]] * 99
    # 0.02 of the height of 100 and 0.015 of the width of 200: the shorter side is 2 of 100 pixels.
    small = [[0.5, 0.5, 0.52, 0.515]]
    assert proposal_settings("selective-search", dataset(large, [1] * 99)).min_size == DEFAULT_MIN_SIZE
    assert proposal_settings("selective-search", dataset([], [])).min_size == DEFAULT_MIN_SIZE
    settings = proposal_settings("dense", dataset(large + small, [1] * 99 + [2]))
    assert settings.min_size == pytest.approx(0.02, rel=1e-4)
    assert min(min(size) for size in settings.dense.sizes) >= settings.min_size


def test_proposals_of_both_methods_without_small_ones():
    settings = ProposalSettings("fast", 10, DenseBoxes(((0.5, 0.4),), 0.5), min_size=0.3)
    searched = selective_search(IMAGE, max_proposals=10, min_size=0.3)
    expected = np.concatenate([searched, dense_boxes(60, 90, settings.dense)])
    heights, widths = ((expected[:, 2:] - expected[:, :2]) * [60, 90]).T
    keep = np.minimum(heights, widths) >= 0.3 * 60
    assert keep[: len(searched)].all()
    assert not keep.all()
    proposals = compute_proposals(IMAGE, settings)
    assert proposals.dtype == np.float32
    np.testing.assert_array_equal(proposals, expected[keep])


def test_no_proposal_may_remain():
    settings = ProposalSettings(dense=DenseBoxes(((0.1, 0.1),), 0.5), min_size=0.2)
    assert compute_proposals(IMAGE, settings).shape == (0, 4)
