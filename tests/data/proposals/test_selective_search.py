import functools
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals.selective_search import selective_search
from tf_fast_rcnn.errors import InputError


def scene(height=80, width=120):
    """A red and a blue rectangle on a noisy green background, and their boxes."""
    image = np.random.default_rng(0).normal(90, 8, (height, width, 3))
    image[10:40, 20:60] = [220, 30, 30]
    image[30:70, 80:110] = [30, 30, 220]
    boxes = [[10 / height, 20 / width, 40 / height, 60 / width], [30 / height, 80 / width, 70 / height, 110 / width]]
    return np.clip(image, 0, 255).astype(np.uint8), np.float32(boxes)


@pytest.fixture(params=["native", "opencv"])
def search(request):
    """`selective_search` with each implementation."""
    return functools.partial(selective_search, implementation=request.param)


@pytest.mark.parametrize("mode", ["fast", "quality"])
def test_finds_the_objects_inside_the_image_without_duplicates(search, mode):
    image, objects = scene()
    proposals = search(image, mode)
    assert proposals.dtype == np.float32
    assert box_algebra.iou(objects, proposals).max(axis=1).min() > 0.9
    assert proposals.min() >= 0
    assert proposals.max() <= 1
    assert np.all(proposals[:, 2:] > proposals[:, :2])
    assert len(np.unique(proposals, axis=0)) == len(proposals)


def test_quality_gives_more_than_fast(search):
    image = scene()[0]
    assert len(search(image, "quality")) > len(search(image, "fast"))


def test_seed_fixes_the_order_whatever_the_threads(search):
    image = scene()[0]
    threads = cv2.getNumThreads()
    expected = search(image, seed=3)
    cv2.setNumThreads(1)
    again = search(image, seed=3)
    cv2.setNumThreads(threads)
    np.testing.assert_array_equal(again, expected)
    other = search(image, seed=4)
    assert not np.array_equal(other, expected)
    np.testing.assert_array_equal(np.unique(other, axis=0), np.unique(expected, axis=0))


def test_another_process_gives_the_same():
    code = (
        "import sys; sys.path.insert(0, 'tests/data/proposals'); "
        "from test_selective_search import scene, selective_search; "
        "sys.stdout.buffer.write(selective_search(scene()[0]).tobytes())"
    )
    output = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert output == selective_search(scene()[0]).tobytes()


def test_at_most_max_proposals_and_they_are_the_first(search):
    image = scene()[0]
    every = search(image)
    assert len(every) > 5
    np.testing.assert_array_equal(search(image, max_proposals=5), every[:5])


def test_large_regions_tend_to_come_first(search):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    areas = box_algebra.area(search(cv2.resize(image, (300, 200), interpolation=cv2.INTER_CUBIC)))
    third = len(areas) // 3
    assert areas[:third].mean() > 1.3 * areas[third:].mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 50), (19, 21)])
def test_tiny_images(search, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    proposals = search(image)
    assert proposals.dtype == np.float32
    assert [0, 0, 1, 1] in proposals.tolist()


def test_image_without_structure_gives_the_whole(search):
    np.testing.assert_array_equal(search(np.zeros((60, 80, 3), np.uint8)), [[0, 0, 1, 1]])


def test_large_images_are_searched_smaller(search):
    image, objects = scene(80, 120)
    proposals = search(image, max_side=60)
    cells = proposals * [40, 60, 40, 60]
    np.testing.assert_allclose(cells, cells.round(), atol=1e-4)
    assert box_algebra.iou(objects, proposals).max(axis=1).min() > 0.85


def test_unknown_mode():
    with pytest.raises(InputError, match="'slow'; expected one of fast, quality"):
        selective_search(scene()[0], "slow")
