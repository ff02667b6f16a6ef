"""Reliability curves compared with scikit-learn, and the calibration error compared with a loop."""

import json
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.calibration import reliability
from tf_fast_rcnn.evaluation.matching import Matching


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
