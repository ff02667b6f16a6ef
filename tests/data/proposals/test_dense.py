import numpy as np
import pytest

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals, selective_search
from tf_fast_rcnn.data.proposals.dense import (
    DEFAULT_DENSE_BOXES,
    DenseBoxes,
    _best_iou,
    dense_boxes,
    dense_in_views,
    fit_dense_boxes,
)
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError


def dataset(*images):
    """`images`: (height, width, pixel boxes [G, 4], labels)."""
    records = []
    for index, (height, width, boxes, labels) in enumerate(images):
        relative = box_algebra.relative(np.float64(boxes).reshape(-1, 4), height, width)
        records.append(ImageRecord(str(index), "", height, width, relative, labels, np.zeros(len(labels))))
    return DetectionDataset("test", ["a", "b", "c"], records)


def random_objects(seed, count, sides, height=480, width=640):
    """Boxes of `count` objects whose centres are inside the image, cut by its borders, with sides in pixels."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(*sides, (count, 1)) * np.exp(rng.uniform(-0.3, 0.3, (count, 2)))
    centres = rng.uniform([0, 0], [height, width], (count, 2))
    return box_algebra.clip(np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1), height, width)


def recall(data, dense, threshold=0.5):
    best = [box_algebra.iou(each.boxes, dense_boxes(each.height, each.width, dense)).max(axis=1) for each in data]
    return np.mean(np.concatenate(best) >= threshold)


def test_positions_by_hand():
    # A box of 1 on an axis of 2 with step 0.5: inside at 0, 0.5 and 1, cut at -0.5 and 1.5; across the other axis of 1
    # it has one position, in the middle, and is cut half a box either way.
    boxes = dense_boxes(2, 1, DenseBoxes(((1.0, 1.0),), 0.5)) * [2, 1, 2, 1]
    down = [[0, 0.5], [0, 1], [0.5, 1.5], [1, 2], [1.5, 2]]
    across = [[0, 0.5], [0, 1], [0.5, 1]]
    np.testing.assert_allclose(boxes, [[y0, x0, y1, x1] for y0, y1 in down for x0, x1 in across])


def test_a_box_larger_than_the_image_is_the_whole_image():
    boxes = dense_boxes(100, 300, DenseBoxes(((1.5, 9.0),), 0.2))
    assert [0, 0, 1, 1] in boxes.tolist()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (1, 1), (10, 100), (333, 333)])
def test_boxes_lie_in_the_image_and_reach_all_borders(height, width):
    boxes = dense_boxes(height, width, DEFAULT_DENSE_BOXES)
    assert boxes.dtype == np.float32
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert np.all(boxes[:, 2:] > boxes[:, :2])
    np.testing.assert_array_equal(boxes.min(axis=0)[:2], [0, 0])
    np.testing.assert_array_equal(boxes.max(axis=0)[2:], [1, 1])


def test_the_shorter_side_is_the_unit():
    for size in ((800, 400), (400, 800)):
        boxes = box_algebra.scale(dense_boxes(*size, DenseBoxes(((0.5, 0.25),), 0.5)), *size)
        largest = (boxes[:, 2:] - boxes[:, :2]).max(axis=0)
        np.testing.assert_allclose(largest, [200, 100], rtol=1e-5)


def test_mirrored_images_have_mirrored_boxes():
    boxes = dense_boxes(480, 640, DEFAULT_DENSE_BOXES)
    mirrored, original = (np.unique(each.round(4), axis=0) for each in (box_algebra.flip_horizontal(boxes), boxes))
    assert len(mirrored) == len(original)
    np.testing.assert_allclose(mirrored, original, atol=2e-4)


@pytest.mark.parametrize(
    ("sides", "least"), [((100, 300), 0.99), ((60, 110), 0.99), ((350, 470), 0.99), ((10, 480), 0.75)]
)
def test_fitted_boxes_find_unseen_objects(sides, least):
    train = dataset(*[(480, 640, random_objects(seed, 10, sides), [1] * 10) for seed in range(30)])
    test = dataset(*[(480, 640, random_objects(seed, 10, sides), [1] * 10) for seed in range(100, 120)])
    dense = fit_dense_boxes(train)
    assert len(dense_boxes(480, 640, dense)) <= 3000
    assert recall(test, dense) >= least
    assert recall(test, dense) >= recall(test, DEFAULT_DENSE_BOXES)


def test_rare_small_objects_count_as_much_as_frequent_large_ones():
    rare = (480, 640, random_objects(1, 12, (35, 45)), [2] * 12)
    frequent = [(480, 640, random_objects(seed, 40, (90, 200)), [1] * 40) for seed in range(2, 12)]
    dense = fit_dense_boxes(dataset(rare, *frequent))
    assert recall(dataset(rare), dense) >= 0.9


def test_one_object_is_enough():
    data = dataset((200, 300, [[20, 30, 120, 250]], [1]))
    dense = fit_dense_boxes(data)
    assert len(dense.sizes) == 1
    np.testing.assert_allclose(dense.sizes[0], [0.5, 1.1], rtol=1e-5)
    assert recall(data, dense, 0.7) == 1


def test_the_fit_ignores_images_without_objects_and_falls_back_without_any():
    objects = (480, 640, random_objects(0, 20, (50, 200)), [1] * 20)
    assert fit_dense_boxes(dataset(objects, (480, 640, [], []))) == fit_dense_boxes(dataset(objects))
    assert fit_dense_boxes(dataset((480, 640, [], []))) == DEFAULT_DENSE_BOXES
    assert len(dense_boxes(480, 640, DEFAULT_DENSE_BOXES)) < 3000


def test_the_fit_is_deterministic_and_keeps_its_budget_and_min_size():
    data = dataset(*[(600, 800, random_objects(seed, 500, (30, 300), 600, 800), [1, 2] * 250) for seed in range(9)])
    dense = fit_dense_boxes(data, max_boxes=800, min_size=0.1)
    assert dense == fit_dense_boxes(data, max_boxes=800, min_size=0.1)
    assert len(dense_boxes(600, 800, dense)) <= 800
    assert min(min(size) for size in dense.sizes) >= 0.1


def test_a_budget_too_small_for_any_size_is_told():
    with pytest.raises(InputError, match="fits into 3 boxes"):
        fit_dense_boxes(dataset((480, 640, [[0, 0, 20, 20]], [1])), max_boxes=3)


def test_small_objects_get_more_boxes_until_nine_tenths_are_found():
    """Squares of 24 to 40 pixels in 1080p: 6000 boxes find few of them."""
    objects = [random_objects(seed, 40, (24, 40), 1080, 1920) for seed in range(10)]
    data = dataset(*[(1080, 1920, boxes, [1] * 40) for boxes in objects])
    few, enough = fit_dense_boxes(data, max_boxes=6000), fit_dense_boxes(data)
    assert recall(data, few) < 0.7
    assert recall(data, enough) >= 0.9
    assert 12_000 < len(dense_boxes(1080, 1920, enough)) <= 24_000


def test_large_objects_keep_to_3000_boxes():
    data = dataset(*[(480, 640, random_objects(seed, 10, (60, 300)), [1] * 10) for seed in range(10)])
    assert fit_dense_boxes(data) == fit_dense_boxes(data, max_boxes=3000)


def test_objects_too_small_for_any_number_of_boxes_are_told():
    """Squares of 4 pixels in 1080p, at half their side from each other, are half a million."""
    data = dataset((1080, 1920, [[500, 500, 504, 504]], [1]))
    with pytest.raises(InputError, match=r"fits into 24000 boxes; expected at least \d{6} .* selective-search"):
        fit_dense_boxes(data)


@pytest.mark.parametrize("size", [(0.2, 0.2), (0.9, 0.1), (1.2, 1.6), (0.5, 0.33)])
def test_the_fit_sees_the_iou_that_the_grid_has(size):
    """The nearest positions compared with all positions."""
    boxes = random_objects(3, 200, (20, 400)) / 480
    images = np.tile([1, 640 / 480], (200, 1))
    for step in (0.2, 0.4, 0.5):
        grid = box_algebra.scale(dense_boxes(480, 640, DenseBoxes((size,), step)), 1, 640 / 480)
        expected = box_algebra.iou(boxes, grid).max(axis=1)
        seen = _best_iou(boxes, images, size, step)
        assert np.all(seen <= expected + 1e-5)
        np.testing.assert_allclose(seen[expected > 0.4], expected[expected > 0.4], atol=1e-5)


@pytest.mark.parametrize(("sizes", "step"), [(((0.5, 0.5),), 0), (((0.5, 0.5),), 1.1), (((0.0, 0.5),), 0.5)])
def test_impossible_boxes_are_refused(sizes, step):
    with pytest.raises(InputError, match="expected 0 < step"):
        DenseBoxes(sizes, step)


# --- tiles ------------------------------------------------------------------------------------------------------------


def test_sizes_in_views_by_hand():
    """Tiles of 100 pixels are responsible for sides of up to 40. The image's shorter side is 400."""
    dense = DenseBoxes(((0.2, 0.4), (0.05, 0.1), (0.5, 0.3)), 0.5)
    found = dense_in_views(400, 800, dense, Tiles(100, 0.4))
    # 20 x 40 and 5 x 10 pixels in tiles; in the whole image 80 x 160 and 200 x 120, but not 20 x 40.
    assert found.sizes == ((0.05, 0.1), (0.0125, 0.025), (0.2, 0.4), (0.5, 0.3))
    found = dense_in_views(400, 800, dense, Tiles(100, 0.4, whole_image=False))
    assert found.sizes == ((0.05, 0.1), (0.0125, 0.025), (0.125, 0.075))


def test_selective_search_runs_on_tiles():
    """Boxes up to 32 pixels come from the tiles, written down here, and larger ones from the whole image.

    Sides are whole pixels but for rounding: many are exactly 32."""
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    settings = ProposalSettings("fast", 200, min_size=0.0, tiles=Tiles(64, 0.5))
    found = compute_proposals(image, settings)
    expected = []
    for top in (0, 32):  # 96 = 64 + 32, 128 = 64 + 2 * 32
        for left in (0, 32, 64):
            part = selective_search(image[top : top + 64, left : left + 64], max_proposals=200)
            pixels = part * 64 + [top, left, top, left]
            expected.append(pixels[np.max(pixels[:, 2:] - pixels[:, :2], axis=1) <= 32.01])
    whole = selective_search(image, max_proposals=200) * [96, 128, 96, 128]
    expected.append(whole[np.max(whole[:, 2:] - whole[:, :2], axis=1) > 32.01])
    expected = np.concatenate(expected)
    assert len(expected) > 20
    np.testing.assert_allclose(found * [96, 128, 96, 128], expected, atol=1e-3)
