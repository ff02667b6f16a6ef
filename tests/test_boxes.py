"""Box operations: numbers computed by hand, naive loops, round trips, and NumPy compared with TensorFlow."""

import doctest
import inspect

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tf_fast_rcnn import boxes

PROPERTY = settings(deadline=None, max_examples=50)
IMAGE_SIDES = st.integers(1, 5000)


@st.composite
def relative_boxes(draw, least_side=0.01, count=None):
    """float64 [N, 4] inside the image, every side at least `least_side`; N is `count` or 0 to 6."""
    rows = draw(st.integers(0, 6)) if count is None else count
    fractions = draw(arrays(np.float64, (rows, 4), elements=st.floats(0, 1, width=32)))
    sides = least_side + fractions[:, 2:] * (1 - least_side)
    starts = fractions[:, :2] * (1 - sides)
    return np.concatenate([starts, starts + sides], axis=1)


def naive_iou(first, second):
    top, left = max(first[0], second[0]), max(first[1], second[1])
    bottom, right = min(first[2], second[2]), min(first[3], second[3])
    overlap = max(bottom - top, 0) * max(right - left, 0)
    areas = [max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (first, second)]
    union = sum(areas) - overlap
    return overlap / union if union > 0 else 0.0


# Numbers by hand ------------------------------------------------------------------------------------------------------

IMAGE = (480, 640)  # Height, width.
THE_BOX = [0.25, 0.5, 0.75, 1.0]  # Rows 120 to 360, columns 320 to 640.


@pytest.mark.parametrize(
    ("name", "foreign", "options"),
    [
        ("voc", [321, 121, 640, 360], {}),
        ("coco", [320, 120, 320, 240], {}),
        ("paper", [120, 320, 240, 320], {}),
        ("xyxy", [320, 120, 640, 360], {}),
        ("corners", [320, 120, 639, 359], {"order": "xyxy", "base": 0}),
        ("corners", [321, 121, 640, 360], {"order": "xyxy", "base": 1}),
        ("corners", [120, 320, 359, 639], {"order": "yxyx", "base": 0}),
        ("corners", [121, 321, 360, 640], {"order": "yxyx", "base": 1}),
    ],
)
def test_conversions_by_hand(name, foreign, options):
    from_foreign, to_foreign = getattr(boxes, f"from_{name}"), getattr(boxes, f"to_{name}")
    np.testing.assert_allclose(from_foreign([foreign], *IMAGE, **options), [THE_BOX], atol=1e-6)
    np.testing.assert_allclose(to_foreign([THE_BOX], *IMAGE, **options), [foreign], atol=1e-4)


def test_yolo_by_hand():
    np.testing.assert_allclose(boxes.from_yolo([[0.75, 0.5, 0.5, 0.5]]), [THE_BOX], atol=1e-7)
    np.testing.assert_allclose(boxes.to_yolo([THE_BOX]), [[0.75, 0.5, 0.5, 0.5]], atol=1e-7)


def test_voc_of_tensorflow_datasets_is_voc():
    """The builder's arithmetic for THE_BOX: ymin / height, xmin / width, ymax / height, xmax / width."""
    built = [121 / 480, 321 / 640, 360 / 480, 640 / 640]
    np.testing.assert_allclose(boxes.from_tfds_voc([built], *IMAGE), [THE_BOX], atol=1e-6)


def test_one_pixel_in_every_format():
    """The pixel in row 2, column 5 (0-based) of an image of 4 x 8."""
    expected = [2 / 4, 5 / 8, 3 / 4, 6 / 8]
    for pixel in (
        boxes.from_voc([6, 3, 6, 3], 4, 8),
        boxes.from_coco([5, 2, 1, 1], 4, 8),
        boxes.from_paper([2, 5, 1, 1], 4, 8),
        boxes.from_xyxy([5, 2, 6, 3], 4, 8),
        boxes.from_yolo([5.5 / 8, 2.5 / 4, 1 / 8, 1 / 4]),
        boxes.from_corners([5, 2, 5, 2], 4, 8),
        boxes.from_corners([3, 6, 3, 6], 4, 8, order="yxyx", base=1),
    ):
        np.testing.assert_allclose(pixel, expected, atol=1e-7)


def test_area_by_hand():
    np.testing.assert_allclose(boxes.area([[0, 0, 2, 3], [1, 1, 1, 5], [3, 3, 2, 1]]), [6, 0, 0])


def test_iou_by_hand():
    first = [[0, 0, 2, 2], [0, 0, 0, 0]]
    second = [[1, 1, 3, 3], [0, 0, 2, 2], [2, 2, 4, 4], [0, 0, 0, 0]]
    np.testing.assert_allclose(boxes.iou(first, second), [[1 / 7, 1, 0, 0], [0, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(boxes.intersection(first, second), [[1, 4, 0, 0], [0, 0, 0, 0]])


def test_encode_and_decode_by_hand():
    # Centre (5, 10), size 10 x 20 becomes centre (8, 8), size 20 x 10.
    proposal, truth = np.float32([[0, 0, 10, 20]]), np.float32([[-2, 3, 18, 13]])
    deltas = np.float32([[0.3, -0.1, np.log(2), -np.log(2)]])
    np.testing.assert_allclose(boxes.encode(proposal, truth), deltas, rtol=1e-6)
    np.testing.assert_allclose(boxes.decode(proposal, deltas), truth, atol=1e-5)


def test_decoded_sizes_are_bounded():
    decoded = boxes.decode(np.float32([[0, 0, 2, 2]]), np.float32([[0, 0, 1000, 5]]))
    np.testing.assert_allclose(decoded, [[1 - 62.5, 1 - 62.5, 1 + 62.5, 1 + 62.5]], rtol=1e-5)


def test_decode_broadcasts_over_classes():
    proposals, deltas = np.random.default_rng(0).random((2, 5, 1, 4)), np.random.default_rng(1).random((2, 5, 3, 4))
    decoded = boxes.decode(proposals, deltas)
    assert decoded.shape == (2, 5, 3, 4)
    np.testing.assert_allclose(decoded[1, 4, 2], boxes.decode(proposals[1, 4, 0], deltas[1, 4, 2]))


def test_clip_by_hand():
    np.testing.assert_allclose(boxes.clip([[-1, 0.2, 0.5, 7]]), [[0, np.float32(0.2), 0.5, 1]])
    np.testing.assert_allclose(boxes.clip([[-1, 5, 99, 7], [50, 50, 60, 60]], 10, 6), [[0, 5, 10, 6], [10, 6, 10, 6]])


def test_flip_by_hand():
    np.testing.assert_allclose(boxes.flip_horizontal([0, 0.25, 1, 0.5]), [0, 0.5, 1, 0.75])
    np.testing.assert_allclose(boxes.flip_horizontal([3, 10, 4, 30], width=40), [3, 10, 4, 30])
    np.testing.assert_allclose(boxes.flip_vertical([0.25, 0, 0.5, 1]), [0.5, 0, 0.75, 1])
    np.testing.assert_allclose(boxes.flip_vertical([3, 10, 4, 30], height=40), [36, 10, 37, 30])


def test_within_by_hand():
    """In an image of 100 x 200 pixels, the window of rows 20..70 and columns 40..140."""
    window = boxes.relative([20, 40, 70, 140], 100, 200)
    inside = boxes.within(boxes.relative([30, 60, 45, 90], 100, 200), window)
    np.testing.assert_allclose(boxes.scale(inside, 50, 100), [10, 20, 25, 50], atol=1e-5)
    np.testing.assert_allclose(boxes.within(window, window), [0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(boxes.within([0, 0, 1, 1], [0.5, 0.5, 1, 1]), [-1, -1, 1, 1])


def test_whole_image_as_the_original_has_it():
    np.testing.assert_array_equal(boxes.to_inclusive_corners([0, 0, 600, 800]), [0, 0, 599, 799])


# Against references ---------------------------------------------------------------------------------------------------


@PROPERTY
@given(relative_boxes(least_side=0.0), relative_boxes(least_side=0.0))
def test_iou_is_that_of_a_naive_loop(first, second):
    expected = [[naive_iou(one, other) for other in second] for one in first]
    np.testing.assert_allclose(boxes.iou(first, second), np.reshape(expected, (len(first), len(second))), atol=1e-9)


@PROPERTY
@given(relative_boxes(), IMAGE_SIDES, IMAGE_SIDES)
def test_iou_does_not_depend_on_the_unit(first, height, width):
    second = first[::-1] * 0.9
    pixels = boxes.iou(boxes.scale(first, height, width), boxes.scale(second, height, width))
    np.testing.assert_allclose(pixels, boxes.iou(first, second), atol=1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_boxes_turn_as_pixels_do(orientation):
    """The box is drawn into an image, and the image is transposed according to EXIF's table."""
    turns = {
        1: lambda image: image,
        2: np.fliplr,
        3: lambda image: np.rot90(image, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda image: np.rot90(image, -1),
        7: lambda image: np.rot90(image, 2).T,
        8: lambda image: np.rot90(image, 1),
    }
    stored = np.zeros((10, 20), bool)
    stored[1:4, 5:13] = True
    displayed = turns[orientation](stored)
    rows, columns = np.nonzero(displayed)
    expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    turned = boxes.from_stored([1 / 10, 5 / 20, 4 / 10, 13 / 20], orientation)
    np.testing.assert_allclose(boxes.scale(turned, *displayed.shape), expected, atol=1e-5)


# Round trips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["voc", "coco", "paper", "xyxy"])
@PROPERTY
@given(original=relative_boxes(), height=IMAGE_SIDES, width=IMAGE_SIDES)
def test_conversions_come_back(name, original, height, width):
    foreign = getattr(boxes, f"to_{name}")(original, height, width)
    np.testing.assert_allclose(getattr(boxes, f"from_{name}")(foreign, height, width), original, atol=1e-9)


@PROPERTY
@given(original=relative_boxes())
def test_yolo_comes_back(original):
    np.testing.assert_allclose(boxes.from_yolo(boxes.to_yolo(original)), original, atol=1e-12)


@pytest.mark.parametrize("order", ["xyxy", "yxyx"])
@pytest.mark.parametrize("base", [0, 1])
@PROPERTY
@given(original=relative_boxes(), height=IMAGE_SIDES, width=IMAGE_SIDES)
def test_corners_come_back(order, base, original, height, width):
    foreign = boxes.to_corners(original, height, width, order, base)
    # Corners are float32 and differ from 0 by up to 5000 pixels.
    np.testing.assert_allclose(boxes.from_corners(foreign, height, width, order, base), original, atol=2e-6 * 5)


@PROPERTY
@given(relative_boxes(), IMAGE_SIDES, IMAGE_SIDES)
def test_scale_comes_back(original, height, width):
    pixels = boxes.scale(original, height, width)
    np.testing.assert_allclose(boxes.relative(pixels, height, width), original, atol=1e-12)
    np.testing.assert_allclose(boxes.scale(pixels, 1 / height, 1 / width), original, atol=1e-12)


@PROPERTY
@given(relative_boxes(least_side=0.02, count=4), relative_boxes(least_side=0.02, count=4))
def test_decode_is_the_inverse_of_encode(proposals, truths):
    np.testing.assert_allclose(boxes.decode(proposals, boxes.encode(proposals, truths)), truths, atol=1e-9)
    # The targets do not depend on the unit.
    targets = boxes.encode(boxes.scale(proposals, 300, 500), boxes.scale(truths, 300, 500))
    np.testing.assert_allclose(targets, boxes.encode(proposals, truths), atol=1e-9)


@PROPERTY
@given(relative_boxes(), st.floats(0.5, 2000))
def test_flipping_twice_comes_back_and_keeps_overlaps(original, width):
    pixels = boxes.scale(original, 100, width)
    flipped = boxes.flip_horizontal(pixels, width)
    np.testing.assert_allclose(boxes.flip_horizontal(flipped, width), pixels, atol=1e-9)
    np.testing.assert_allclose(boxes.iou(flipped, flipped), boxes.iou(pixels, pixels), atol=1e-9)


@PROPERTY
@given(arrays(np.float64, (5, 4), elements=st.floats(-3, 3)))
def test_clipped_boxes_lie_inside_and_clipping_again_changes_nothing(wild):
    clipped = boxes.clip(wild)
    assert np.all((clipped >= 0) & (clipped <= 1))
    np.testing.assert_array_equal(boxes.clip(clipped), clipped)
    inside = np.all((wild >= 0) & (wild <= 1), axis=1)
    np.testing.assert_array_equal(clipped[inside], wild[inside])


# NumPy and TensorFlow -------------------------------------------------------------------------------------------------

_RNG = np.random.default_rng(0)
_CORNERS = np.sort(_RNG.uniform(0, 1, (7, 2, 2)), axis=1).reshape(7, 4).astype(np.float32)
_OTHERS = np.sort(_RNG.uniform(0, 1, (7, 2, 2)), axis=1).reshape(7, 4).astype(np.float32)
_CALLS = {
    "area": lambda first, second: boxes.area(first),
    "intersection": boxes.intersection,
    "iou": boxes.iou,
    "encode": boxes.encode,
    "decode": boxes.decode,
    "clip": lambda first, second: boxes.clip(first * 2 - 0.5),
    "flip_horizontal": lambda first, second: boxes.flip_horizontal(first),
    "flip_vertical": lambda first, second: boxes.flip_vertical(first),
    "scale": lambda first, second: boxes.scale(first, 480, 640),
    "relative": lambda first, second: boxes.relative(first * 100, 480, 640),
    "enlarge": lambda first, second: boxes.enlarge(first, 1.5),
    "within": lambda first, second: boxes.within(first, [0.1, 0.2, 0.6, 0.8]),
    "to_inclusive_corners": lambda first, second: boxes.to_inclusive_corners(first * 100),
    "from_stored": lambda first, second: boxes.from_stored(first, 7),
    "from_voc": lambda first, second: boxes.from_voc(first, 480, 640),
    "to_voc": lambda first, second: boxes.to_voc(first, 480, 640),
    "from_coco": lambda first, second: boxes.from_coco(first, 480, 640),
    "to_coco": lambda first, second: boxes.to_coco(first, 480, 640),
    "from_paper": lambda first, second: boxes.from_paper(first, 480, 640),
    "to_paper": lambda first, second: boxes.to_paper(first, 480, 640),
    "from_xyxy": lambda first, second: boxes.from_xyxy(first, 480, 640),
    "to_xyxy": lambda first, second: boxes.to_xyxy(first, 480, 640),
    "from_yolo": lambda first, second: boxes.from_yolo(first),
    "to_yolo": lambda first, second: boxes.to_yolo(first),
    "from_tfds_voc": lambda first, second: boxes.from_tfds_voc(first, 480, 640),
}
# Proposal files are read with NumPy only.
_NUMPY_ONLY = {"from_corners", "to_corners"}


@pytest.mark.parametrize("name", sorted(_CALLS))
@pytest.mark.parametrize("traced", [False, True])
def test_tensors_give_what_arrays_give(name, traced):
    call = tf.function(_CALLS[name]) if traced else _CALLS[name]
    result = call(tf.constant(_CORNERS), tf.constant(_OTHERS))
    expected = _CALLS[name](_CORNERS, _OTHERS)
    assert tf.is_tensor(result)
    assert isinstance(expected, np.ndarray)
    assert result.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_every_public_function_is_compared():
    functions = inspect.getmembers(boxes, inspect.isfunction)
    public = {name for name, value in functions if value.__module__ == boxes.__name__ and not name.startswith("_")}
    assert public == set(_CALLS) | _NUMPY_ONLY


def test_no_boxes_are_legal():
    empty = np.zeros((0, 4), np.float32)
    assert boxes.iou(empty, _CORNERS).shape == (0, 7)
    assert boxes.iou(tf.constant(_CORNERS), tf.constant(empty)).shape == (7, 0)
    assert boxes.encode(empty, empty).shape == (0, 4)
    assert boxes.from_voc(empty, 3, 4).shape == (0, 4)


def test_docstring_examples():
    result = doctest.testmod(boxes)
    assert result.attempted >= 8
    assert result.failed == 0
