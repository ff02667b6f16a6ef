"""The analysis as JSON and text, compared with values computed by hand for the case in conftest.py; reliability curves
compared with scikit-learn and a loop; confusion matrices of scenes made by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.analysis import analyse, confusion_matrix, reliability
from tf_fast_rcnn.evaluation.matching import Matching


@pytest.fixture(scope="module")
def facts(errors_case):
    dataset, found = errors_case
    analysis = analyse(dataset, found, score_detections(dataset, found))
    return json.loads(json.dumps(analysis.to_json(), allow_nan=False)), analysis


def test_errors_and_confusion(facts, errors_case):
    names = errors_case[0].class_names
    counts = facts[0]["breakdown"]["counts"]
    assert {kind: list(of_kind.values()) for kind, of_kind in counts.items()} == {
        "classification": [1, 0, 0],
        "localisation": [1, 0, 0],
        "both": [0, 1, 0],
        "duplicate": [1, 0, 0],
        "background": [0, 1, 0],
        "missed": [0, 2, 0],
    }
    assert facts[0]["confusion"]["classes"] == [*names, None]
    # Cats: both detected. Dogs: one detected as a cat, two missed. Background: the other four errors.
    assert facts[0]["confusion"]["counts"] == [[2, 0, 0, 0], [1, 0, 0, 2], [0, 0, 0, 0], [2, 2, 0, 0]]


def test_proposals(facts, errors_case):
    """Each image has a proposal on the cat and one that covers three quarters of the dog; the third image has none."""
    names = errors_case[0].class_names
    proposals = facts[0]["proposals"]
    assert proposals["recall"] == pytest.approx(4 / 5)
    overlaps = [1.0, (0.75 + 0.75 + 0.0) / 3]
    for name, recall, overlap in zip(names, [1.0, 2 / 3], overlaps, strict=False):
        expected = {"recall": pytest.approx(recall), "average_best_overlap": pytest.approx(overlap)}
        assert proposals["classes"][name] == expected
    assert proposals["classes"]["ghost"] == {"recall": None, "average_best_overlap": None}
    assert proposals["mean_average_best_overlap"] == pytest.approx(np.mean(overlaps))


def test_calibration(facts, errors_case):
    calibration = facts[0]["calibration"]
    scores = [0.9, 0.85, 0.8, 0.7, 0.95, 0.75, 0.65]
    assert sum(calibration["counts"]) == len(scores)
    # Bins: (0.6, 0.7] two false, (0.7, 0.8] two false, (0.8, 0.9] one of two true, (0.9, 1] one true.
    expected = (1.35 + 1.55 + abs(1 - 1.75) + abs(1 - 0.95)) / 7
    assert calibration["error"] == pytest.approx(expected, abs=1e-6)
    assert calibration["classes"]["ghost"]["error"] is None


def test_text(facts):
    gains, calibration, proposals = facts[1].text().splitlines()
    assert gains.startswith("gain in mean AP from fixing each type of error: ")
    values = [float(part.split("+")[1]) for part in gains.split(": ")[1].split(", ")]
    assert len(values) == 6
    assert values == sorted(values, reverse=True)
    assert calibration == "calibration error of the scores: 0.529"
    assert proposals == "proposals: recall 0.800 at IoU 0.5, mean average best overlap 0.750"


def test_without_proposals_objects_or_probabilities(errors_case):
    dataset = DetectionDataset("empty", ["cat"], [ImageRecord("0", "", 10, 10, [], [], [])])
    found = [Detections(np.float32([[0, 0, 1, 1]]), np.float32([7.5]), np.int32([1]))]
    analysis = analyse(dataset, found, score_detections(dataset, found))
    facts = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert facts["proposals"] is facts["calibration"] is facts["breakdown"]["mean_ap"] is None
    assert analysis.text() == ""


def test_json_of_a_data_set_without_objects_is_strict(errors_case):
    bare = [dataclasses.replace(record, boxes=[], class_ids=[], difficult=[], crowd=None) for record in errors_case[0]]
    dataset = errors_case[0].with_records(bare)
    analysis = analyse(dataset, errors_case[1], score_detections(dataset, errors_case[1]))
    facts = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert facts["breakdown"]["gains"]["missed"] is None
    assert facts["proposals"]["mean_average_best_overlap"] is None


def matching(scores, true, counts=None, labels=None):
    size = len(scores)
    counts = np.ones(size, bool) if counts is None else counts
    labels = np.ones(size, int) if labels is None else labels
    none = np.zeros(0, int)
    return Matching(np.zeros(size, int), labels, np.float32(scores), none, true, counts, none, none, none)


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn_and_a_loop(seed):
    rng = np.random.default_rng(seed)
    # Some scores are on bin edges, and some bins are empty.
    scores = np.float32(np.concatenate([rng.random(300) ** 3 * 0.8, np.arange(8) / 10, [0.0]]))
    true = rng.random(len(scores)) < scores
    labels, counts = rng.integers(1, 3, len(scores)), rng.random(len(scores)) < 0.9
    for label in (None, 1, 2):
        chosen = counts if label is None else counts & (labels == label)
        found = reliability(matching(scores, true, counts, labels), label)
        precisions, means = calibration_curve(true[chosen], scores[chosen].astype(float), n_bins=10)
        np.testing.assert_allclose(found.precisions[found.counts > 0], precisions)
        np.testing.assert_allclose(found.scores[found.counts > 0], means)
        assert found.counts[-1] == 0
        assert np.isnan(found.scores[-1])
        error = 0.0
        for tenth in range(10):
            # In float64, because the float32 numbers nearest to 0.1, 0.2, ... are slightly above or below them.
            inside = [n for n in np.flatnonzero(chosen) if tenth / 10 < float(scores[n]) <= (tenth + 1) / 10]
            inside += [n for n in np.flatnonzero(chosen) if scores[n] == tenth == 0]
            if inside:
                error += len(inside) / chosen.sum() * abs(np.mean(true[inside]) - np.mean(scores[inside].astype(float)))
        assert found.error == pytest.approx(error)


def test_right_seven_times_in_ten_at_0_7_is_no_error_and_at_0_9_one_of_0_2():
    true = np.arange(10) < 7
    assert reliability(matching([0.7] * 10, true)).error == pytest.approx(0.0, abs=1e-7)
    assert reliability(matching([0.9] * 10, true)).error == pytest.approx(0.2)


def test_of_an_evaluation():
    """One detection on the object, one off it, and one on a difficult object, which does not count."""
    box, other, beside = [0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.5, 0, 0.9, 0.2]
    dataset = DetectionDataset("one", ["cat", "dog"], [ImageRecord("0", "", 50, 50, [box, other], [1, 1], [0, 1])])
    found = Detections(np.float32([box, beside, other]), np.float32([0.9, 0.6, 0.3]), np.int32([1, 1, 1]))
    for protocol in ("voc07", "coco"):
        curve = reliability(score_detections(dataset, [found], protocol).matchings[0], 1)
        assert curve.counts.sum() == 2
        assert curve.error == pytest.approx((0.1 + 0.6) / 2)


def test_no_detections_and_scores_that_are_no_probabilities():
    empty = reliability(matching([], np.zeros(0, bool)))
    assert math.isnan(empty.error)
    assert json.loads(json.dumps(empty.to_json(), allow_nan=False))["error"] is None
    assert reliability(matching([0.5, 3.0], np.array([True, True]))) is None


A, B, C, D = [0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.6, 0.6, 0.8, 0.8], [0, 0.6, 0.3, 0.9]
NEAR_A = [0, 0, 0.2, 0.18]


def matrix(objects, found, difficult=None, crowd=None, **options):
    """Objects and detections as `(box, class, score)`; classes cat 1, dog 2."""
    labels = [label for _, label in objects]
    difficult = [False] * len(labels) if difficult is None else difficult
    record = ImageRecord("0", "", 100, 100, [box for box, _ in objects], labels, difficult, crowd)
    columns = [[each[n] for each in found] for n in range(3)]
    boxes, classes, scores = columns
    detections = Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(classes))
    return confusion_matrix(DetectionDataset("one", ["cat", "dog"], [record]), [detections], **options).tolist()


def test_right_wrong_missed_and_nothing_there():
    found = [(A, 1, 0.9), (B, 2, 0.8), (D, 2, 0.7)]
    assert matrix([(A, 1), (B, 1), (C, 2)], found) == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_a_detection_of_the_right_class_goes_before_one_with_a_higher_score():
    assert matrix([(A, 1)], [(A, 2, 0.9), (NEAR_A, 1, 0.6)]) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_the_higher_score_finds_the_object_and_a_duplicate_finds_nothing():
    assert matrix([(A, 1)], [(NEAR_A, 1, 0.6), (A, 1, 0.9)]) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_scores_below_the_least_and_overlaps_below_the_threshold():
    assert matrix([(A, 1)], [(A, 1, 0.4)]) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert matrix([(A, 1)], [(A, 1, 0.4)], min_score=0.4)[0] == [1, 0, 0]
    assert matrix([(A, 1)], [(NEAR_A, 1, 0.9)], iou_threshold=0.95) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_difficult_objects_and_crowds_do_not_count():
    found = [(A, 2, 0.9), (B, 1, 0.8), (D, 1, 0.7)]
    assert matrix([(A, 1), (B, 1)], found, [True, False], [False, True]) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_no_objects_and_no_detections():
    assert matrix([], [(A, 1, 0.9)]) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert matrix([(A, 2)], []) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
