"""Non-maximum suppression by the ops of TensorFlow, TF Lite and LiteRT, compared with exact arithmetic on boxes whose
corners are on a grid: tied scores, overlaps equal to the threshold, boxes without area. The other kinds of suppression
are compared with naive loops of floats."""

import functools
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from naive_detection import naive_suppression

from tf_fast_rcnn import DetectionSettings
from tf_fast_rcnn.inference.suppression import suppress, suppress_in_one_image

CLASSES = 3
RUNTIMES = ("tensorflow", "portable ops", "litert", "tf.lite")
# Halves and eighths are exact in float32; tenths and thirds are not, and neither are the IoUs of boxes on such a grid.
THRESHOLDS = (Fraction(0), Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(7, 10), Fraction(1))
SCORES = np.float32([0, 0.05, 0.1, 0.25, 0.5, 0.75, 1])


def exact_suppression(scores, corners, threshold, limit, score_threshold, nms="per-class"):
    """(score, class, row) of each detection; corners are whole numbers `[R, K, 4]`, and so areas are exact."""
    kept = []
    places = [(label, row) for label in range(CLASSES) for row in range(len(scores))]
    for label, row in sorted(places, key=lambda place: -scores[place[1], place[0] + 1]):
        box = [int(corner) for corner in corners[row, label]]
        if scores[row, label + 1] <= score_threshold or exact_area(box) == 0:
            continue
        rivals = [place for place in kept if nms == "across-classes" or place[0] == label]
        if all(exact_iou(box, corners[other, of]) <= threshold for of, other in rivals):
            kept.append((label, row))
    return [(scores[row, label + 1], label + 1, row) for label, row in kept[:limit]]


def exact_area(box):
    return max(int(box[2]) - int(box[0]), 0) * max(int(box[3]) - int(box[1]), 0)


def exact_iou(first, second):
    shared = exact_area([*np.maximum(first, second)[:2], *np.minimum(first, second)[2:]])
    return Fraction(shared, exact_area(first) + exact_area(second) - shared)


@functools.cache
def runner(runtime, threshold, limit, score_threshold, **kind):
    """Function of scores `[R, K + 1]` and boxes `[R, K, 4]` that returns boxes, scores, classes and their number."""
    chosen = DetectionSettings(
        nms_iou_threshold=float(threshold), max_detections=limit, score_threshold=score_threshold, **kind
    )
    specs = [tf.TensorSpec([None, CLASSES + 1], name="scores"), tf.TensorSpec([None, CLASSES, 4], name="boxes")]
    if runtime == "tensorflow":
        specs = [tf.TensorSpec([None, *spec.shape], name=spec.name) for spec in specs]
        in_batch = tf.function(functools.partial(suppress, chosen), input_signature=specs, autograph=False)
        return lambda scores, boxes: [found[0].numpy() for found in in_batch(scores[None], boxes[None])]
    names = ("found", "found_scores", "found_classes", "count")

    @tf.function(input_signature=specs, autograph=False)
    def in_one_image(scores, boxes):
        return dict(zip(names, suppress_in_one_image(chosen, scores, boxes), strict=True))

    if runtime == "portable ops":
        return lambda scores, boxes: [in_one_image(scores, boxes)[name].numpy() for name in names]
    data = tf.lite.TFLiteConverter.from_concrete_functions([in_one_image.get_concrete_function()], tf.Module())
    interpreter = {"litert": Interpreter, "tf.lite": tf.lite.Interpreter}[runtime](model_content=data.convert())
    run = interpreter.get_signature_runner()
    return lambda scores, boxes: [run(scores=scores, boxes=boxes)[name] for name in names]


def relative(corners, cells):
    """Boxes relative to a grid of so many cells."""
    return (corners / np.float32(cells)).astype(np.float32)


def check(runtime, scores, corners, cells, threshold, limit=8, score_threshold=0.05, **kind):
    boxes = relative(corners, cells)
    found, found_scores, classes, count = runner(runtime, threshold, limit, score_threshold, **kind)(scores, boxes)
    expected = exact_suppression(scores, corners, threshold, limit, np.float32(score_threshold), **kind)
    assert int(count) == len(expected)
    assert found.shape == (limit, 4)
    assert list(zip(found_scores[:count].tolist(), classes[:count].tolist(), strict=True)) == [
        (float(score), label) for score, label, _ in expected
    ]
    np.testing.assert_array_equal(found[:count], [boxes[row, label - 1] for _, label, row in expected] or found[:0])
    for padding in (found, found_scores, classes):
        assert not padding[count:].any()


@st.composite
def cases(draw, cells=(2, 4, 8, 10, 30)):
    """Scores and corners with many ties, equal boxes, overlaps by simple fractions, and boxes without area."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, cells = draw(st.integers(1, 30)), draw(st.sampled_from(cells))
    corners = np.sort(rng.integers(0, cells + 1, (rows, CLASSES, 2, 2)), axis=2).reshape(rows, CLASSES, 4)
    scores = rng.choice(SCORES[: draw(st.integers(2, len(SCORES)))], (rows, CLASSES + 1))
    return scores, corners, cells


@pytest.mark.parametrize("runtime", RUNTIMES)
@hypothesis_settings(deadline=None, max_examples=150)
@given(case=cases(), threshold=st.sampled_from(THRESHOLDS), limit=st.sampled_from([3, 40]))
def test_any_runtime_keeps_what_exact_arithmetic_keeps(runtime, case, threshold, limit):
    check(runtime, *case, threshold, limit)


def rows_of(scores, corners):
    """Scores `[R, K + 1]` and corners `[R, K, 4]` with the same values for each class."""
    scores = np.repeat(np.float32(scores)[:, None], CLASSES + 1, axis=1)
    return scores, np.repeat(np.array(corners)[:, None], CLASSES, axis=1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_box_is_lost_after_one_without_area(runtime):
    scores, corners = rows_of([0.9, 0.8, 0.7, 0.6], [[3, 8, 6, 8], [0, 0, 2, 2], [4, 1, 7, 4], [6, 4, 8, 8]])
    check(runtime, scores, corners, 8, Fraction(1, 2), limit=40)
    found = runner(runtime, Fraction(1, 2), 40, 0.05)(scores, relative(corners, 8))
    assert found[3] == 3 * CLASSES


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("threshold", "number"), [(Fraction(0), 3), (Fraction(1, 3), 4), (Fraction(1), 5)], ids=str)
def test_an_overlap_equal_to_the_threshold_does_not_suppress(runtime, threshold, number):
    # The second box only touches the first one, the third overlaps both by a third, and the fourth is the first.
    corners = [[0, 0, 2, 2], [0, 2, 2, 4], [0, 1, 2, 3], [0, 0, 2, 2], [2, 0, 4, 4]]
    scores, corners = rows_of([0.9, 0.8, 0.7, 0.6, 0.5], corners)
    check(runtime, scores, corners, 4, threshold, limit=40)
    assert runner(runtime, threshold, 40, 0.05)(scores, relative(corners, 4))[3] == number * CLASSES


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tied_scores_come_by_class_and_then_by_row(runtime):
    corners = [[0, column, 8, column + 1] for column in (5, 2, 7, 0, 3, 1, 6, 4)]
    scores, corners = rows_of([0.5] * 8, corners)
    found, _, classes, count = runner(runtime, Fraction(1, 2), 20, 0.05)(scores, relative(corners, 8))
    assert count == 20
    assert classes.tolist() == [1] * 8 + [2] * 8 + [3] * 4
    np.testing.assert_array_equal(found * 8, np.concatenate([corners[:, 0], corners[:, 1], corners[:4, 2]]))


def test_images_of_a_batch_do_not_mix():
    rng = np.random.default_rng(4)
    corners = np.sort(rng.integers(0, 9, (5, 20, CLASSES, 2, 2)), axis=3).reshape(5, 20, CLASSES, 4)
    boxes = relative(corners, 8)
    scores = rng.choice(SCORES, (5, 20, CLASSES + 1))
    scores[2] = 0.0
    chosen = DetectionSettings(nms_iou_threshold=0.5, max_detections=8)
    found = [values.numpy() for values in suppress(chosen, scores, boxes)]
    for index in range(5):
        alone = runner("tensorflow", Fraction(1, 2), 8, 0.05)(scores[index], boxes[index])
        for values, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(values[index], expected)
    assert found[3].tolist()[2] == 0


def test_ids_of_chosen_classes():
    scores, corners = rows_of([0.5, 0.5, 0.9], [[0, 0, 4, 4], [0, 0, 4, 4], [4, 4, 8, 8]])
    chosen, boxes = DetectionSettings(class_ids=(1, 3), max_detections=8), relative(corners, 8)
    one_image, batch = suppress_in_one_image(chosen, scores, boxes), suppress(chosen, scores[None], boxes[None])
    assert one_image[2].numpy().tolist() == batch[2].numpy()[0].tolist() == [1, 3, 1, 3, 0, 0, 0, 0]
    assert one_image[3] == batch[3][0] == 4


# --- across classes, soft, box voting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@hypothesis_settings(deadline=None, max_examples=60)
@given(case=cases(), threshold=st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(1, 2), Fraction(1)]))
def test_any_runtime_suppresses_across_classes_as_exact_arithmetic(runtime, case, threshold):
    check(runtime, *case, threshold, 8, nms="across-classes")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_across_classes_the_lower_class_of_equal_scores_is_kept(runtime):
    scores, corners = rows_of([0.5, 0.5, 0.7, 0.4], [[0, 0, 4, 4], [0, 0, 4, 4], [4, 4, 8, 8], [0, 4, 4, 8]])
    scores[2, 3] = 0.75  # of the third row, class 3 wins
    check(runtime, scores, corners, 8, Fraction(1, 2), nms="across-classes")
    found = runner(runtime, Fraction(1, 2), 8, 0.05, nms="across-classes")(scores, relative(corners, 8))
    assert found[2][: found[3]].tolist() == [3, 1, 1]


KINDS = {
    "soft": {"nms": "soft"},
    "soft with a smaller sigma": {"nms": "soft", "soft_nms_sigma": 0.125},
    "voting": {"box_voting": True},
    "voting across classes": {"nms": "across-classes", "box_voting": 0.25},
    "soft with voting": {"nms": "soft", "box_voting": 0.75},
}


def check_naively(runtime, scores, corners, cells, limit, **kind):
    boxes = relative(corners, cells)
    found, found_scores, classes, count = runner(runtime, Fraction(1, 2), limit, 0.05, **kind)(scores, boxes)
    chosen = DetectionSettings(nms_iou_threshold=0.5, max_detections=limit, score_threshold=np.float32(0.05), **kind)
    expected = naive_suppression(scores, boxes, chosen)
    assert int(count) == len(expected)
    assert classes.tolist() == [label for _, label, _ in expected] + [0] * (limit - count)
    np.testing.assert_allclose(found_scores[:count], [score for score, _, _ in expected], rtol=2e-5)
    np.testing.assert_allclose(found[:count], [box for _, _, box in expected] or found[:0], atol=1e-6)
    assert np.all(np.diff(found_scores) <= 0)
    for padding in (found, found_scores):
        assert not padding[count:].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", RUNTIMES)
@hypothesis_settings(deadline=None, max_examples=40)
@given(case=cases(cells=(2, 4, 8, 32)), limit=st.sampled_from([3, 40]))
def test_any_runtime_does_what_the_papers_loops_do(runtime, kind, case, limit):
    check_naively(runtime, *case, limit, **KINDS[kind])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_soft_nms_in_numbers(runtime):
    # The second box is the first, the third overlaps both by a third, and the fourth touches nothing.
    scores, corners = rows_of([0.9, 0.8, 0.7, 0.05], [[0, 0, 2, 2], [0, 0, 2, 2], [0, 1, 2, 3], [4, 4, 8, 8]])
    found = runner(runtime, Fraction(1, 2), 12, 0.01, nms="soft", class_ids=(2,))(scores, relative(corners, 8))
    assert found[3] == 4
    third, second = 0.7 * np.exp(-2 / 9), 0.8 * np.exp(-2) * np.exp(-2 / 9)
    np.testing.assert_allclose(found[1][:4], [0.9, third, second, 0.05], rtol=1e-5)
    np.testing.assert_array_equal(found[0][:4] * 8, corners[[0, 2, 1, 3], 0])
    assert found[2][:4].tolist() == [2] * 4
    # A lowered score at or below the threshold is no detection.
    higher = runner(runtime, Fraction(1, 2), 12, 0.1, nms="soft", class_ids=(2,))(scores, relative(corners, 8))
    assert higher[3] == 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_box_voting_in_numbers(runtime):
    # IoU with the first box: the second 3/5, the third a half, which is enough, the fourth less; all but the last vote.
    corners = [[0, 0, 8, 8], [0, 2, 8, 10], [0, 0, 8, 4], [0, 5, 8, 13]]
    scores, corners = rows_of([0.75, 0.5, 0.25, 0.375], corners)
    scores[1, 2] = 0.0  # this row does not vote in class 2
    found = runner(runtime, Fraction(1, 10), 3, 0.3, box_voting=True)(scores, relative(corners, 16))
    assert found[2].tolist() == [1, 2, 3]
    np.testing.assert_allclose(found[1], 0.75)
    of_all, without_second = [0, 1 / 1.5, 8, 12 / 1.5], [0, 0, 8, 7]
    np.testing.assert_allclose(found[0] * 16, [of_all, without_second, of_all], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_do_not_mix_in_any_kind(kind):
    rng = np.random.default_rng(4)
    corners = np.sort(rng.integers(0, 9, (3, 20, CLASSES, 2, 2)), axis=3).reshape(3, 20, CLASSES, 4)
    boxes, scores = relative(corners, 8), rng.choice(SCORES, (3, 20, CLASSES + 1))
    scores[1] = 0.0
    chosen = DetectionSettings(nms_iou_threshold=0.5, max_detections=8, **KINDS[kind])
    found = [values.numpy() for values in suppress(chosen, scores, boxes)]
    for index in range(3):
        alone = runner("tensorflow", Fraction(1, 2), 8, 0.05, **KINDS[kind])(scores[index], boxes[index])
        for values, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(values[index], expected)
    assert found[3].tolist()[1] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_image_and_no_proposal(kind):
    chosen = DetectionSettings(max_detections=8, **KINDS[kind])
    for images, rows in ((0, 5), (2, 0)):
        scores, boxes = np.zeros((images, rows, CLASSES + 1), np.float32), np.zeros((images, rows, CLASSES, 4))
        found = suppress(chosen, scores, boxes.astype(np.float32))
        assert [values.shape.as_list() for values in found] == [[images, 8, 4], [images, 8], [images, 8], [images]]
        assert not any(values.numpy().any() for values in found)


def test_a_higher_score_threshold_only_drops_voted_boxes():
    scores, corners = rows_of([0.9, 0.6, 0.3, 0.1], [[0, 0, 8, 8], [0, 1, 8, 9], [0, 2, 8, 10], [0, 8, 8, 16]])
    for kind in ({"box_voting": True}, {"nms": "soft", "box_voting": True}):
        low, high = (runner("tensorflow", Fraction(1, 2), 12, each, **kind) for each in (0.05, 0.5))
        all_boxes, fewer = low(scores, relative(corners, 16)), high(scores, relative(corners, 16))
        assert 0 < fewer[3] < all_boxes[3]
        np.testing.assert_array_equal(fewer[0][: fewer[3]], all_boxes[0][: fewer[3]])
