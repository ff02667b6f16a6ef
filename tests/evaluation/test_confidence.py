"""Confidence intervals compared with resampled datasets that are scored again, image by image."""

import json
import math
import time

import numpy as np
import pytest

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.confidence import with_confidence


def random_case(seed, num_images=10, num_objects=4, num_classes=2):
    """Objects, some difficult or crowds, and detections near them or anywhere, all with different scores."""
    rng = np.random.default_rng(seed)
    records, found = [], []
    scores = rng.permutation(num_images * 2 * num_objects).astype(np.float32).reshape(num_images, -1) / 100
    for number in range(num_images):
        corners = rng.uniform(0, 0.6, (num_objects, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0.2, 0.4, (num_objects, 2))], axis=1)
        labels = rng.integers(1, num_classes + 1, num_objects)
        flags = rng.random((2, num_objects)) < [[0.2], [0.1]]
        records.append(ImageRecord(f"{number}", "", 480, 640, boxes, labels, flags[0], flags[1]))
        near = boxes + rng.uniform(-0.06, 0.06, boxes.shape)
        anywhere = np.sort(rng.random((num_objects, 2, 2)), axis=1).reshape(-1, 4)
        detected = np.concatenate([near, anywhere]).astype(np.float32)
        classes = np.concatenate([labels, rng.integers(1, num_classes + 1, num_objects)])
        found.append(Detections(detected, scores[number], classes.astype(np.int32)))
    names = [f"class {label}" for label in range(1, num_classes + 1)]
    return DetectionDataset("random", names, records), found


def naive_aps(dataset, found, protocol, seed, samples):
    """AP of each resample, scored as a separate dataset: `[S, K]`."""
    rng, aps = np.random.default_rng(seed), []
    for _ in range(samples):
        drawn = np.sort(rng.integers(len(dataset), size=len(dataset)))
        result = score_detections(dataset[drawn], [found[image] for image in drawn], protocol)
        aps.append([of_class.ap for of_class in result.classes])
    return np.array(aps)


@pytest.mark.parametrize(("protocol", "samples"), [("voc07", 60), ("voc10", 60), ("coco", 20)])
def test_equals_resampled_data_sets(protocol, samples):
    dataset, found = random_case(1)
    aps = naive_aps(dataset, found, protocol, 5, samples)
    result = with_confidence(score_detections(dataset, found, protocol), 0.8, samples, seed=5, progress=False)
    low, high = np.quantile(aps.mean(axis=1), [0.1, 0.9])
    assert 0.05 < high - low < 0.6
    assert result.confidence.mean_ap == pytest.approx((low, high), abs=1e-9)
    for of_class, of_samples in zip(result.classes, aps.T, strict=True):
        assert of_class.interval == pytest.approx(np.quantile(of_samples, [0.1, 0.9]), abs=1e-9)


def test_resamples_without_objects_of_a_class_are_left_out():
    dataset, found = random_case(2, num_images=3, num_objects=1, num_classes=3)
    aps = naive_aps(dataset, found, "voc10", 0, 50)
    assert 0 < np.isnan(aps).sum() < aps.size
    result = with_confidence(score_detections(dataset, found, "voc10"), 0.9, 50, progress=False)
    means = [np.mean(row[~np.isnan(row)]) for row in aps if not np.isnan(row).all()]
    assert result.confidence.mean_ap == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=1e-9)
    for of_class, of_samples in zip(result.classes, aps.T, strict=True):
        values = of_samples[~np.isnan(of_samples)]
        expected = np.quantile(values, [0.05, 0.95]) if len(values) else [math.nan] * 2
        assert of_class.interval == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_seed_and_level():
    dataset, found = random_case(3)
    result = score_detections(dataset, found)
    first, again, other = (with_confidence(result, seed=seed, samples=40, progress=False) for seed in (1, 1, 2))
    assert first.confidence.mean_ap == again.confidence.mean_ap != other.confidence.mean_ap
    wide, narrow = (with_confidence(result, level, 40, progress=False).confidence.mean_ap for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < result.mean_ap < narrow[1] < wide[1]


def test_table_and_json_show_the_intervals():
    dataset, found = random_case(4, num_classes=2)
    dataset = DetectionDataset("random", [*dataset.class_names, "ghost"], dataset.records)
    result = with_confidence(score_detections(dataset, found), samples=20, seed=7, progress=False)
    head, first, _, ghost, mean = result.table().splitlines()
    assert head.endswith("95 % interval")
    low, high = result.classes[0].interval
    assert first.endswith(f"{low:.3f} to {high:.3f}")
    assert ghost.endswith("-  (no objects: not in the mean)")
    assert "{:.3f} to {:.3f}  (voc07".format(*result.confidence.mean_ap) in mean
    facts = json.loads(json.dumps(result.to_json(), allow_nan=False))
    expected = {"level": 0.95, "samples": 20, "seed": 7, "mean_ap": list(result.confidence.mean_ap)}
    assert facts["confidence"] == expected
    assert [row["interval"] for row in facts["classes"]] == [[low, high], list(result.classes[1].interval), [None] * 2]


@pytest.mark.parametrize(("level", "samples"), [(0.0, 10), (1.0, 10), (math.nan, 10), (95, 10), (0.9, 1)])
def test_impossible_levels(level, samples):
    result = score_detections(*random_case(5))
    with pytest.raises(InputError, match="confidence: found") as error:
        with_confidence(result, level, samples)
    assert "\n" not in str(error.value)


def test_a_thousand_resamples_of_a_small_test_set_take_seconds():
    dataset, found = random_case(6, num_images=73, num_objects=50, num_classes=3)
    result = score_detections(dataset, found)
    started = time.process_time()
    with_confidence(result, progress=False)
    assert time.process_time() - started < 10
