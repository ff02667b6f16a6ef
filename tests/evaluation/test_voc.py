"""AP of PASCAL VOC compared with a naive implementation of the kit and with cases computed by hand."""

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.average_precision import ELEVEN_RECALLS, area_ap, eleven_point_ap

SIDE = 100  # pixels of the square test images


def record(image_id, boxes, labels, difficult=None):
    boxes = np.float32(boxes).reshape(-1, 4) / SIDE
    difficult = np.zeros(len(labels)) if difficult is None else difficult
    return ImageRecord(image_id, f"{image_id}.jpg", SIDE, SIDE, boxes, labels, difficult)


def detections(boxes, scores, classes):
    return Detections(np.float32(boxes).reshape(-1, 4) / SIDE, np.float32(scores), np.int32(classes))


def naive_overlap(first, second):
    """The IoU of the kit, with inclusive integer corners and widths with "+ 1", from continuous edges."""
    first, second = ([edges[0] + 1, edges[1] + 1, edges[2], edges[3]] for edges in (first, second))
    height = min(first[2], second[2]) - max(first[0], second[0]) + 1
    width = min(first[3], second[3]) - max(first[1], second[1]) + 1
    if height <= 0 or width <= 0:
        return None
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return height * width / (areas[0] + areas[1] - height * width)


def naive_curve(images, label, threshold):
    """VOCevaldet.m, line by line. Images are (objects [(box, label, difficult)], detections [(box, score, label)])."""
    npos = sum(not difficult for objects, _ in images for _, of, difficult in objects if of == label)
    candidates = [
        (score, number, box) for number, (_, found) in enumerate(images) for box, score, of in found if of == label
    ]
    candidates.sort(key=lambda candidate: -candidate[0])  # stable
    detected, true, false, curve = set(), 0, 0, []
    for _, number, box in candidates:
        best, best_index = -math.inf, None
        for index, (object_box, of, _) in enumerate(images[number][0]):
            overlap = naive_overlap(box, object_box) if of == label else None
            if overlap is not None and overlap > best:
                best, best_index = overlap, index
        if best >= threshold:
            if images[number][0][best_index][2]:
                pass  # difficult: neither
            elif (number, best_index) not in detected:
                detected.add((number, best_index))
                true += 1
            else:
                false += 1
        else:
            false += 1
        if true + false:
            curve.append((true, false))
    return npos, curve


def matlab_colon(start, step, count):
    """MATLAB's `start:step:start + count * step`, which counts from both ends to the middle.

    MathWorks, "How does the COLON operator work?": the k-th number is start + k * step in the first half, and
    stop - (count - k) * step in the second.
    """
    stop = start + count * step
    ends = [start + k * step if k <= count // 2 else stop - (count - k) * step for k in range(count + 1)]
    return [(start + stop) / 2 if 2 * k == count else end for k, end in enumerate(ends)]


def naive_ap(npos, curve, protocol):
    if npos == 0:
        return math.nan
    points = [(true / npos, true / (true + false)) for true, false in curve]
    if protocol == "voc07":
        levels = [
            max([true / (true + false) for true, false in curve if true / npos >= level], default=0.0)
            for level in matlab_colon(0.0, 0.1, 10)
        ]
        return sum(levels) / 11
    recall = [0.0, *[point[0] for point in points], 1.0]
    precision = [0.0, *[point[1] for point in points], 0.0]
    for index in range(len(precision) - 2, -1, -1):
        precision[index] = max(precision[index], precision[index + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)) if recall[i] != recall[i - 1])


def random_box(rng):
    # A coarse grid makes IoUs of exactly 0.5 and equal IoUs with two objects frequent.
    top, left = rng.integers(0, 6, 2) * 10
    height, width = rng.integers(1, 5, 2) * 10
    return [int(top), int(left), int(top + height), int(left + width)]


def random_images(seed, num_images=12, num_classes=3):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(num_images):
        objects = [
            (random_box(rng), int(rng.integers(1, num_classes + 1)), bool(rng.random() < 0.25))
            for _ in range(rng.integers(0, 5))
        ]
        found = [(random_box(rng), None, int(rng.integers(1, num_classes + 1))) for _ in range(rng.integers(0, 6))]
        # Repeated objects lead to duplicates and to detections of difficult objects.
        found += [(box, None, label) for box, label, _ in objects * 2 if rng.random() < 0.6]
        images.append((objects, [(box, float(rng.integers(1, 6) / 8), label) for box, _, label in found]))
    return images


def to_dataset(images, num_classes=3):
    records, found = [], []
    for number, (objects, candidates) in enumerate(images):
        records.append(record(f"{number}", [o[0] for o in objects], [o[1] for o in objects], [o[2] for o in objects]))
        found.append(detections(*[[candidate[column] for candidate in candidates] for column in range(3)]))
    return DetectionDataset("random", [f"class {label}" for label in range(1, num_classes + 1)], records), found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.3, 0.5, 0.75]))
def test_equals_the_kit_on_random_data_with_ties_duplicates_and_difficult_objects(seed, threshold):
    images = random_images(seed)
    dataset, found = to_dataset(images)
    for protocol in ("voc07", "voc10"):
        result = score_detections(dataset, found, protocol, threshold)
        for label, of_class in enumerate(result.classes, start=1):
            npos, curve = naive_curve(images, label, threshold)
            np.testing.assert_allclose(of_class.ap, naive_ap(npos, curve, protocol), atol=1e-12)
            assert of_class.num_objects == npos


def test_random_data_holds_the_cases_that_decide():
    """The random cases of the comparison contain ties, IoUs of exactly 0.5, duplicates and difficult matches."""
    images = [image for seed in range(30) for image in random_images(seed)]
    pairs = [
        (naive_overlap(box, object_box), difficult)
        for objects, found in images
        for box, _, label in found
        for object_box, of, difficult in objects
        if of == label
    ]
    assert sum(overlap == 0.5 for overlap, _ in pairs) >= 10
    assert sum(overlap == 1.0 and difficult for overlap, difficult in pairs) >= 50
    assert any(not objects for objects, _ in images)
    assert any(not found for _, found in images)


def test_small_case_computed_by_hand():
    dataset = DetectionDataset(
        "hand",
        ["cat"],
        [
            record("0", [[0, 0, 20, 20], [50, 50, 70, 70]], [1, 1]),
            record("1", [], []),
            record("2", [[0, 0, 40, 40]], [1]),
        ],
    )
    found = [
        detections([[0, 0, 20, 20], [0, 0, 20, 18]], [0.9, 0.7], [1, 1]),  # true positive, then a duplicate
        detections([[10, 10, 30, 30]], [0.8], [1]),  # background
        detections([[0, 0, 40, 20]], [0.6], [1]),  # IoU exactly 0.5
    ]
    result = score_detections(dataset, found, "voc10").classes[0]
    np.testing.assert_allclose(result.precision, [1, 1 / 2, 1 / 3, 2 / 4])
    np.testing.assert_allclose(result.recall, [1 / 3, 1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(result.scores, [0.9, 0.8, 0.7, 0.6])
    assert result.ap == pytest.approx(1 / 3 * 1.0 + 1 / 3 * 0.5)
    # Recalls 0, .1, .2, .3 at precision 1; .4, .5, .6 at precision 1/2; the rest is not reached.
    assert score_detections(dataset, found, "voc07").mean_ap == pytest.approx((4 * 1.0 + 3 * 0.5) / 11)


def test_a_detection_that_overlaps_a_found_object_most_is_a_duplicate_even_if_another_is_free():
    dataset = DetectionDataset("two", ["cell"], [record("0", [[0, 0, 20, 20], [0, 6, 20, 26]], [1, 1])])
    found = [detections([[0, 0, 20, 20], [0, 2, 20, 22]], [0.9, 0.8], [1, 1])]
    np.testing.assert_allclose(score_detections(dataset, found).classes[0].precision, [1, 1 / 2])


def test_detections_on_a_difficult_object_count_for_nothing():
    dataset = DetectionDataset("d", ["cell"], [record("0", [[0, 0, 20, 20], [50, 50, 60, 60]], [1, 1], [True, False])])
    found = [detections([[0, 0, 20, 20], [0, 0, 20, 19], [50, 50, 60, 60]], [0.9, 0.8, 0.7], [1, 1, 1])]
    result = score_detections(dataset, found).classes[0]
    assert (result.ap, result.num_objects, result.num_detections) == (1.0, 1, 3)
    np.testing.assert_allclose(result.precision, [1.0])


def test_the_eleven_recalls_are_those_of_matlab():
    """0:0.1:1 holds 3 * 0.1, which is greater than 0.3, but 1 - 4 * 0.1 and 1 - 3 * 0.1, which are 0.6 and 0.7.

    NumPy's arange(0, 1.1, 0.1), which ports of the kit use, has three other numbers.
    """
    assert list(ELEVEN_RECALLS) == matlab_colon(0.0, 0.1, 10)
    assert [tenth for tenth in range(11) if ELEVEN_RECALLS[tenth] != tenth / 10] == [3]
    assert ELEVEN_RECALLS[3] == 0.30000000000000004
    assert [tenth for tenth in range(11) if np.arange(0, 1.1, 0.1)[tenth] != ELEVEN_RECALLS[tenth]] == [6, 7]


@pytest.mark.parametrize("num_objects", [10, 20, 30, 70])
@pytest.mark.parametrize("tenth", range(1, 11))
def test_a_recall_of_exactly_k_tenths_reaches_k_plus_one_points_but_for_three_tenths(num_objects, tenth):
    """By hand: all detections are right, so AP is the number of points reached / 11: 2, 3, 3, 5, 6, ... 11."""
    hits = np.arange(1, num_objects * tenth // 10 + 1)
    points = 3 if tenth == 3 else tenth + 1
    assert eleven_point_ap(hits / num_objects, np.ones(len(hits))) == pytest.approx(points / 11)


def test_three_of_ten_objects_found_computed_by_hand():
    """Three right detections, then a wrong one, of ten objects: the recalls 0, 0.1 and 0.2 are reached, 0.3 is not."""
    boxes = [[0, 10 * n, 10, 10 * n + 10] for n in range(10)]
    dataset = DetectionDataset("ten", ["cat"], [record("0", boxes, [1] * 10)])
    found = detections([*boxes[:3], [50, 50, 90, 90]], [0.9, 0.8, 0.7, 0.6], [1] * 4)
    assert score_detections(dataset, [found], "voc07").mean_ap == pytest.approx(3 / 11)
    # A fourth hit reaches 0.3 and 0.4, at a precision of 4 / 5.
    found = detections([*boxes[:3], [50, 50, 90, 90], boxes[3]], [0.9, 0.8, 0.7, 0.6, 0.5], [1] * 5)
    assert score_detections(dataset, [found], "voc07").mean_ap == pytest.approx((3 + 2 * 0.8) / 11)


def test_equal_scores_are_in_the_order_of_the_lines_that_they_were_read_from():
    """The kit sorts the lines of a class's file; here the second image's, which is right, comes before the first's."""
    dataset = DetectionDataset("two", ["cat"], [record("a", [], []), record("b", [[0, 0, 20, 20]], [1])])
    wrong, right = detections([[50, 50, 90, 90]], [0.5], [1]), detections([[0, 0, 20, 20]], [0.5], [1])
    assert score_detections(dataset, [wrong, right], "voc10").mean_ap == 0.5
    later, earlier = (dataclasses.replace(found, file_positions=np.array([n])) for found, n in [(wrong, 8), (right, 3)])
    result = score_detections(dataset, [later, earlier], "voc10")
    assert result.mean_ap == 1.0
    np.testing.assert_allclose(result.classes[0].precision, [1, 1 / 2])


def test_area_is_that_under_the_staircase():
    assert area_ap(np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 2 / 3])) == pytest.approx(0.25 + 0.25 * 2 / 3)


def test_a_class_without_objects_is_left_out_of_the_mean_and_the_table_says_so():
    dataset = DetectionDataset("one", ["cat", "dog"], [record("0", [[0, 0, 10, 10]], [1])])
    found = [detections([[0, 0, 10, 10], [0, 0, 50, 50]], [0.9, 0.9], [1, 2])]
    result = score_detections(dataset, found)
    assert result.mean_ap == 1.0
    assert math.isnan(result.classes[1].ap)
    cat, dog, mean = result.table().splitlines()[1:]
    assert cat.split() == ["cat", "1", "1", "1.000"]
    assert dog == f"{'dog':<7}  {0:>8}  {1:>10}  {'-':>6}  (no objects: not in the mean)"
    assert mean.endswith("1.000  (voc07, IoU 0.50)")


def test_no_detections_at_all_give_zero():
    dataset = DetectionDataset("one", ["cat"], [record("0", [[0, 0, 10, 10]], [1])])
    for protocol in ("voc07", "voc10"):
        assert score_detections(dataset, [detections([], [], [])], protocol).mean_ap == 0.0


def test_five_thousand_images_take_seconds():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (5000, 30, 2))
    records, found = [], []
    for number, top_left in enumerate(corners):
        boxes = np.concatenate([top_left, top_left + 30], axis=1)
        records.append(record(f"{number}", boxes[:10], rng.integers(1, 21, 10)))
        found.append(detections(boxes, rng.random(30), rng.integers(1, 21, 30)))
    dataset = DetectionDataset("large", [f"{label}" for label in range(20)], records)
    start = time.perf_counter()
    result = score_detections(dataset, found)
    assert time.perf_counter() - start < 10
    assert 0 < result.mean_ap < 0.2
