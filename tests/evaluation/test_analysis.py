"""The analysis as JSON and text, compared with values computed by hand for the case in conftest.py."""

import dataclasses
import json

import numpy as np
import pytest

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.analysis import analyse


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
