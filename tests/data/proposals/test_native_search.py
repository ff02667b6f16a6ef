"""The compiled selective search, compared with a naive one, scikit-image and OpenCV."""

import itertools
import subprocess
import sys

import cv2
import naive_selective_search as naive
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import felzenszwalb, find_boundaries

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals import native_search
from tf_fast_rcnn.data.proposals.native_search import COLOR_SPACES, SIMILARITIES, group, segment
from tf_fast_rcnn.data.proposals.selective_search import selective_search
from tf_fast_rcnn.errors import InputError

STRATEGIES = {
    "fast": [SIMILARITIES, SIMILARITIES[1:]],
    "quality": [SIMILARITIES, SIMILARITIES[1:], ("fill",), ("size",)],
}
SPACES = {"fast": COLOR_SPACES[:2], "quality": COLOR_SPACES}
KS = {"fast": (150, 300, 450), "quality": (150, 300, 450, 600, 750)}


def patches(seed, height=14, width=17, number=6):
    """Rectangles of a few colours with a little noise, for segments of many sizes and many ties."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3))
    for _ in range(number):
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = rng.integers(0, 256, 3)
    return np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("space", COLOR_SPACES)
@pytest.mark.parametrize(("k", "min_segment"), [(2, 1), (20, 4), (150, 12)])
def test_segments_are_the_naive_ones(space, k, min_segment):
    for seed in range(3):
        image = patches(seed)
        expected = naive.segment(image, space, k, min_segment)
        assert expected.max() > 0
        np.testing.assert_array_equal(segment(image, space, k, min_segment), expected)


@pytest.mark.parametrize("space", COLOR_SPACES)
@pytest.mark.parametrize("similarities", STRATEGIES["quality"], ids="+".join)
def test_hierarchies_are_the_naive_ones(space, similarities):
    image = patches(5)
    expected = naive.group(image, space, naive.segment(image, space, 10, 3), similarities)
    assert len(expected) > 9
    np.testing.assert_array_equal(group(image, space, 10, similarities, 3), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 7), st.integers(1, 7), st.sampled_from(COLOR_SPACES))
def test_hierarchies_of_noise_are_the_naive_ones(seed, height, width, space):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    expected = naive.group(image, space, naive.segment(image, space, 30, 2), SIMILARITIES)
    np.testing.assert_array_equal(group(image, space, 30, SIMILARITIES, 2), expected)


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_the_whole_search_is_the_naive_one(mode):
    """Here, segments have at least 90 pixels, so the image is larger."""
    image = patches(3, 12, 15, 9).repeat(3, axis=0).repeat(3, axis=1)
    expected = np.float32(naive.search(image, SPACES[mode], KS[mode], STRATEGIES[mode], 90, 11))
    assert len(expected) >= 5
    found = selective_search(image, mode, seed=11, implementation="native")
    np.testing.assert_array_equal(found, expected / np.float32([36, 45, 36, 45]))


def test_the_ks_of_a_mode_do_not_disturb_one_another():
    """The library segments all scales together as far as they agree; each must have the same segments on its own."""
    image = cv2.resize(skimage.data.astronaut(), (160, 160), interpolation=cv2.INTER_AREA)
    alone = {
        tuple(box)
        for space, k, similarities in itertools.product(SPACES["quality"], KS["quality"], STRATEGIES["quality"])
        for box in group(image, space, k, similarities)[:, :4].tolist()
    }
    together = selective_search(image, "quality", 100_000, implementation="native") * 160
    assert {tuple(box) for box in together.round().astype(int).tolist()} == alone


@pytest.mark.parametrize("k", [150, 450])
def test_segments_beside_those_of_scikit_image(k):
    """Its smoothing and its diagonal edges differ, so the segments' borders agree only mostly."""
    image = skimage.data.coffee()[:240, :320]
    planes = np.moveaxis(naive.channels_of(image, "lab"), 0, 2).astype(np.uint8)
    # It expects k for values from 0 to 1.
    expected = felzenszwalb(planes, scale=k, sigma=0.8, min_size=100)
    found = segment(image, "lab", k)
    assert 0.6 < (found.max() + 1) / (expected.max() + 1) < 1.6
    borders, expected_borders = find_boundaries(found), find_boundaries(expected)
    near = [cv2.dilate(each.astype(np.uint8), np.ones((5, 5))) > 0 for each in (borders, expected_borders)]
    assert np.mean(near[1][borders]) > 0.75
    assert np.mean(near[0][expected_borders]) > 0.75


@pytest.mark.parametrize(
    ("space", "conversion"), [("hsv", cv2.COLOR_RGB2HSV), ("lab", cv2.COLOR_RGB2Lab), ("gray", cv2.COLOR_RGB2GRAY)]
)
def test_colors_are_opencvs(space, conversion):
    """Hierarchies by the naive implementation, which the tests above show to be equal to the library's."""
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    expected = np.atleast_3d(cv2.cvtColor(image, conversion)).astype(int)
    difference = np.abs(np.moveaxis(naive.channels_of(image, space), 0, 2) - expected)
    difference[..., 0] = (
        np.minimum(difference[..., 0], 180 - difference[..., 0]) if space == "hsv" else difference[..., 0]
    )
    assert difference.max() <= 2
    assert np.mean(difference > 0) < 0.15


def test_large_images_are_searched_at_the_mean_of_their_areas():
    image = skimage.data.astronaut()[:300, :450]
    for max_side in (150, 197):
        size = (max_side, round(300 * max_side / 450))
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        found = selective_search(image, max_side=max_side, implementation="native")
        expected = selective_search(shrunk, implementation="native")
        cells = found * np.tile(size[::-1], 2)
        np.testing.assert_allclose(cells, cells.round(), atol=1e-4)
        if max_side == 150:  # cv2 rounds differently for factors that are not whole numbers
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_threads_do_not_change_boxes(mode):
    image = cv2.resize(skimage.data.astronaut(), (200, 150))
    expected = selective_search(image, mode, implementation="native")
    for threads in (2, 3, 4, 16):
        np.testing.assert_array_equal(selective_search(image, mode, implementation="native", threads=threads), expected)


NOISE = np.random.default_rng(0).integers(0, 256, (120, 150, 3), np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        NOISE,
        NOISE[..., :1].repeat(3, axis=2),
        NOISE[:, :1],
        NOISE[:1],
        NOISE[:1, :1],
        np.zeros_like(NOISE),
        NOISE[::2, ::3],
    ],
    ids=["noise", "gray", "Nx1", "1xN", "1x1", "constant", "not contiguous"],
)
@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_odd_images(image, mode):
    boxes = selective_search(image, mode, implementation="native", threads=2)
    assert boxes.dtype == np.float32
    assert [0, 0, 1, 1] in boxes.tolist()
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert np.all(boxes[:, 2:] > boxes[:, :2])
    assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_min_size_leaves_out_small_boxes_before_the_limit():
    image = cv2.resize(skimage.data.astronaut(), (200, 150))
    every = selective_search(image, max_proposals=10_000, implementation="native")
    sides = (every[:, 2:] - every[:, :2]) * [150 / 150, 200 / 150]
    large = selective_search(image, max_proposals=20, min_size=0.5, implementation="native")
    assert len(large) == 20
    allowed = {tuple(box) for box in every[sides.min(axis=1) >= 0.5]}
    assert {tuple(box) for box in large} <= allowed


def test_near_duplicates_come_last():
    image = cv2.resize(skimage.data.astronaut(), (200, 150))
    boxes = selective_search(image, max_proposals=10_000, implementation="native")
    iou = box_algebra.iou(boxes, boxes)
    like_an_earlier_one = np.array([np.any(iou[i, :i] > 0.9 - 1e-6) for i in range(len(boxes))])
    first = int(np.argmax(like_an_earlier_one))
    assert 0 < first < len(boxes) - 1
    assert like_an_earlier_one[first:].all()


def test_missing_library_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(native_search, "_LIBRARY", tmp_path / "_selective_search.so")
    native_search._load.cache_clear()
    try:
        with pytest.raises(InputError, match=r"found no _selective_search.so in .*; expected the compiled library"):
            selective_search(NOISE, implementation="native")
        (tmp_path / "_selective_search.so").write_bytes(b"not a library")
        native_search._load.cache_clear()
        assert "cannot be loaded" in native_search.why_unavailable()
    finally:
        native_search._load.cache_clear()


def test_without_the_library_opencv_takes_its_place_and_says_so():
    code = """
import pathlib, warnings
import numpy as np
from tf_fast_rcnn.data.proposals import native_search, proposal_settings, selective_search
native_search._LIBRARY = pathlib.Path("/nonexistent/_selective_search.so")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert proposal_settings("selective-search", []).implementation == "opencv"
    assert selective_search(np.zeros((20, 30, 3), np.uint8)).tolist() == [[0, 0, 1, 1]]
print([str(each.message) for each in caught])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.count("OpenCV") == 1
    assert "found no _selective_search.so in /nonexistent" in printed
