"""Detection in tiles, compared with loops over windows that are written down here, and with detection of the parts."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn import DetectionSettings, boxes, detect, detect_batch
from tf_fast_rcnn.data.tiles import Tiles, tile_windows
from tf_fast_rcnn.inference import views as views_module
from tf_fast_rcnn.inference.detect import classify_regions
from tf_fast_rcnn.inference.graph import Detector
from tf_fast_rcnn.inference.views import view_of_each, views_of

SIDES = {"shorter_side": 64, "longer_side": 160}
IN_TILES = DetectionSettings(**SIDES, tile=32, tile_overlap=0.25, score_threshold=0.0, max_detections=300)


@pytest.fixture
def small_views(monkeypatch):
    """Views of at most 96 pixels of the network's input, 48 of the image."""
    monkeypatch.setattr(views_module, "VIEW_SIDE", 96)


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_boxes(number, height, width, longest, seed=0):
    """Relative boxes of at most `longest` pixels."""
    random = np.random.default_rng(seed)
    sides = random.uniform(2, longest, (number, 2))
    corners = random.uniform(0, 1, (number, 2)) * (np.array([height, width]) - sides)
    pixels = np.concatenate([corners, corners + sides], axis=1)
    return boxes.relative(pixels, height, width).astype(np.float32)


# --- windows ----------------------------------------------------------------------------------------------------------

lengths = st.integers(1, 3000)


@settings(deadline=None, max_examples=60)
@given(lengths, lengths, st.integers(32, 600), st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([64, 480]), st.data())
def test_every_box_up_to_the_limit_is_inside_its_view(height, width, tile, overlap, side, data):
    in_tiles = DetectionSettings(side, 1000, tile=tile, tile_overlap=overlap, whole_image=False)
    found = views_of(tf.constant([height, width]), in_tiles)
    windows, sizes = found.windows.numpy(), found.sizes.numpy()
    factor = side / tile
    longest = max(tile, math.floor(1280 / factor))
    assert np.all(windows[:, :2] >= 0)
    assert np.all(windows[:, 2:] <= [height, width])
    sides = windows[:, 2:] - windows[:, :2]
    assert np.all(sides <= longest)
    np.testing.assert_allclose(sizes, np.maximum(sides * factor, 1), atol=0.51)
    covered = np.zeros((height, width), bool)
    for top, left, bottom, right in windows:
        covered[top:bottom, left:right] = True
    assert covered.all()

    draw = data.draw
    limit = overlap * tile
    box_sides = np.minimum([draw(st.floats(0.5, limit)), draw(st.floats(0.5, limit))], [height, width])
    corner = np.array([draw(st.floats(0, 1)), draw(st.floats(0, 1))]) * (np.array([height, width]) - box_sides)
    box = np.concatenate([corner, corner + box_sides]).astype(np.float32)
    (view,) = view_of_each(found, tf.constant(box[None]), in_tiles).numpy()
    top, left, bottom, right = windows[view]
    assert top - 1e-2 <= box[0]
    assert left - 1e-2 <= box[1]
    assert box[2] <= bottom + 1e-2
    assert box[3] <= right + 1e-2
    # No view's centre is nearer by more than the rounding of the windows, along either axis.
    distances = np.abs((windows[:, :2] + windows[:, 2:]) / 2 - (box[:2] + box[2:]) / 2)
    assert np.all(distances[view] <= distances.min(axis=0) + 1.01)


def test_larger_boxes_are_those_of_the_whole_image():
    settings = DetectionSettings(64, 160, tile=32, tile_overlap=0.25)
    found = views_of(tf.constant([100, 200]), settings)
    np.testing.assert_array_equal(found.windows[-1], [0, 0, 100, 200])
    np.testing.assert_array_equal(found.sizes[-1], [64, 128])
    rows = tf.constant([[0.0, 0, 8, 8], [0, 0, 8.01, 2], [50, 100, 51, 180]])
    whole = len(found.windows) - 1
    assert view_of_each(found, rows, settings).numpy().tolist() == [0, whole, whole]


def test_windows_of_tiles():
    """Counted by hand: 1080 = 240 + 5 * 168, and 1920 = 240 + 10 * 168, with steps of at most 180."""
    found = tile_windows(1080, 1920, Tiles(240, 0.25))
    assert len(found) == 6 * 11
    assert found[0].tolist() == [0, 0, 240, 240]
    assert found[-1].tolist() == [840, 1680, 1080, 1920]
    assert np.diff(np.unique(found[:, 0])).tolist() == [168] * 5
    assert tile_windows(100, 50, Tiles(240)).tolist() == [[0, 0, 100, 50]]


# --- regions ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_views")
@pytest.mark.parametrize("whole", [True, False])
def test_regions_are_those_of_their_windows(tiny_model, whole):
    """Each box is classified in a window of its own, by detection without tiles on the pixels of that window."""
    height, width = 88, 128
    image = random_image(height, width)
    rows = np.concatenate([random_boxes(40, height, width, 8), random_boxes(10, height, width, 60, seed=1)])
    settings = DetectionSettings(**SIDES, tile=32, tile_overlap=0.25, whole_image=whole)
    found = classify_regions(tiny_model, image, rows, settings)
    # At most 48 pixels, with an overlap of 9: 88 = 3 windows of 36 (starts 0, 26, 52), 128 = 4 of 39 (0, 30, 59, 89).
    tops, lefts = (0, 26, 52), (0, 30, 59, 89)
    assert found.shape == (50, 4)
    for row, probabilities in zip(rows, found, strict=True):
        pixels = row * np.array([height, width, height, width])
        sides, middle = pixels[2:] - pixels[:2], (pixels[:2] + pixels[2:]) / 2
        if whole and sides.max() > 8:
            part, at = image, row
            plain = DetectionSettings(**SIDES)
        else:
            # The nearest centre; the exact places are multiples of 26 and 89 / 3, before rounding.
            top = tops[np.argmin([abs(26 * i + 18 - middle[0]) for i in range(3)])]
            left = lefts[np.argmin([abs(89 / 3 * i + 19.5 - middle[1]) for i in range(4)])]
            part = image[top : top + 36, left : left + 39]
            at = (pixels - [top, left, top, left]) / np.array([36, 39, 36, 39])
            plain = DetectionSettings(72, 78)
        expected = classify_regions(tiny_model, part, [at], plain)[0]
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_views")
@pytest.mark.parametrize("steps", [1, 2])
def test_detections_are_the_suppressed_regions(tiny_model, steps):
    """`detect` drops regions early, view by view; this is suppression of all regions at once."""
    image = random_image(90, 130)
    rows = random_boxes(200, 90, 130, 16)
    settings = DetectionSettings(**SIDES, tile=32, tile_overlap=0.25, score_threshold=0.4, box_refinement_steps=steps)
    detector = Detector(tiny_model, settings)
    probabilities, class_boxes = detector.regions(lambda _: tf.constant(image), tf.RaggedTensor.from_tensor(rows[None]))
    assert probabilities.shape[2:] == [4]
    assert 0 < np.count_nonzero(probabilities.numpy()[0, :, 1:].max(axis=1) > 0.4) < 200
    expected = detector.suppress(probabilities.to_tensor(), class_boxes.to_tensor())
    found = detect(tiny_model, image, rows, settings)
    count = int(expected[3][0])
    assert len(found) == count > 3
    np.testing.assert_allclose(found.scores, expected[1][0, :count], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, expected[0][0, :count], atol=1e-5)
    np.testing.assert_array_equal(found.class_ids, expected[2][0, :count])


@pytest.mark.usefixtures("small_views")
def test_batches_and_images_smaller_than_a_tile(tiny_model):
    images = [random_image(90, 130), random_image(20, 25, seed=1), random_image(33, 200, seed=2)]
    rows = [random_boxes(30, *image.shape[:2], 8, seed=number) for number, image in enumerate(images)]
    rows[2] = rows[2][:0]
    together = detect_batch(tiny_model, images, rows, IN_TILES)
    assert len(together[2]) == 0
    for found, image, proposals in zip(together, images, rows, strict=True):
        alone = detect(tiny_model, image, proposals, IN_TILES)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-4)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-5)


def test_an_image_of_one_tile_is_seen_as_without_tiles(tiny_model):
    image, rows = random_image(32, 32), random_boxes(30, 32, 32, 8)
    plain = DetectionSettings(**SIDES, score_threshold=0.0, max_detections=300)
    found, expected = (detect(tiny_model, image, rows, settings) for settings in (IN_TILES, plain))
    assert len(found) == len(expected) > 10
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-6)
