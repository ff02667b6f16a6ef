"""COCO's figures through pycocotools: cases computed by hand, and VOC's area where both must agree."""

import json
import math

import numpy as np
import pytest

from tf_fast_rcnn.data.records import DetectionDataset, Detections, ImageRecord
from tf_fast_rcnn.evaluation import score_detections

HEIGHT, WIDTH = 480, 640


def relative(boxes):
    return np.float32(boxes).reshape(-1, 4) / np.float32([HEIGHT, WIDTH, HEIGHT, WIDTH])


def record(image_id, boxes, labels, difficult=None):
    difficult = np.zeros(len(labels)) if difficult is None else difficult
    return ImageRecord(image_id, f"{image_id}.jpg", HEIGHT, WIDTH, relative(boxes), labels, difficult)


def detections(boxes, scores, classes):
    return Detections(relative(boxes), np.float32(scores), np.int32(classes))


def test_overlap_of_0_8_counts_at_seven_of_the_ten_thresholds():
    dataset = DetectionDataset("one", ["cat"], [record("0", [[0, 0, 100, 100]], [1])])
    result = score_detections(dataset, [detections([[0, 0, 80, 100]], [0.9], [1])], "coco")
    assert result.mean_ap == pytest.approx(0.7)  # 0.50, 0.55, ... 0.80
    expected = {"AP": 0.7, "AP50": 1.0, "AP75": 1.0, "AP_large": 0.7, "AR_1": 0.7, "AR_100": 0.7, "AR_large": 0.7}
    for name, value in expected.items():
        assert result.metrics[name] == pytest.approx(value), name
    assert math.isnan(result.metrics["AP_small"])
    assert math.isnan(result.metrics["AP_medium"])
    assert result.iou_threshold is None


def test_object_of_32_by_32_pixels_is_small_and_medium_whatever_float32_makes_of_it():
    """COCO's ranges include both ends; the rounding of relative edges must not move an object out of one."""
    for corner in (7, 101, 333):
        box = [corner, corner, corner + 32, corner + 32]
        dataset = DetectionDataset("one", ["cat"], [record("0", [box], [1])])
        metrics = score_detections(dataset, [detections([box], [0.9], [1])], "coco").metrics
        assert metrics["AP_small"] == pytest.approx(1.0)
        assert metrics["AP_medium"] == pytest.approx(1.0)


def test_area_ranges_take_each_object_once():
    sizes = {"small": 20, "medium": 60, "large": 200}
    boxes = [[0, 0, 20, 20], [100, 0, 160, 60], [200, 200, 400, 400]]
    dataset = DetectionDataset("sizes", ["cat"], [record("0", boxes, [1, 1, 1])])
    for number, name in enumerate(sizes):
        metrics = score_detections(dataset, [detections([boxes[number]], [0.9], [1])], "coco").metrics
        found = {size: metrics[f"AP_{size}"] for size in sizes}
        assert found == pytest.approx({size: float(size == name) for size in sizes})


def test_detection_on_a_difficult_object_counts_for_nothing():
    boxes = [[0, 0, 100, 100], [200, 200, 300, 300]]
    dataset = DetectionDataset("difficult", ["cat"], [record("0", boxes, [1, 1], [True, False])])
    result = score_detections(dataset, [detections(boxes, [0.9, 0.8], [1, 1])], "coco")
    assert result.mean_ap == pytest.approx(1.0)
    assert result.classes[0].num_objects == 1
    missed = score_detections(dataset, [detections(boxes[1:], [0.8], [1])], "coco")
    assert missed.metrics["AR_100"] == pytest.approx(1.0)


def test_ap50_is_the_best_precision_from_each_of_101_recalls_of_the_voc_curve():
    """With one object and one detection an image, VOC's matching and COCO's are the same."""
    rng = np.random.default_rng(3)
    records, found = [], []
    for number in range(40):
        records.append(record(f"{number}", [[100, 100, 200, 200]], [1]))
        box = [100, 100, 200, 200] if rng.random() < 0.7 else [300, 300, 400, 400]
        found.append(detections([box], [rng.integers(1, 9) / 8], [1]))
    dataset = DetectionDataset("separable", ["cat"], records)
    curve = score_detections(dataset, found, "voc10").classes[0]
    best = [
        max((p for p, r in zip(curve.precision, curve.recall, strict=True) if r >= level), default=0.0)
        for level in np.linspace(0, 1, 101)
    ]
    result = score_detections(dataset, found, "coco")
    assert 0.3 < np.mean(best) < 0.8
    assert result.metrics["AP50"] == pytest.approx(np.mean(best), abs=1e-9)
    np.testing.assert_allclose(result.classes[0].precision, best, atol=1e-9)


def test_classes_without_objects_and_images_without_anything():
    records = [record("0", [[0, 0, 50, 50]], [1]), record("1", [], [])]
    dataset = DetectionDataset("two", ["cat", "dog"], records)
    found = [detections([[0, 0, 50, 50]], [0.9], [1]), detections([[0, 0, 50, 50]], [0.5], [2])]
    result = score_detections(dataset, found, "coco")
    assert result.mean_ap == pytest.approx(1.0) == pytest.approx(result.metrics["AP"])
    assert math.isnan(result.classes[1].ap)
    assert result.classes[1].num_detections == 1


def test_nothing_detected_gives_zero():
    dataset = DetectionDataset("one", ["cat"], [record("0", [[0, 0, 50, 50]], [1])])
    result = score_detections(dataset, [detections([], [], [])], "coco")
    assert result.mean_ap == 0.0
    assert result.metrics["AR_100"] == 0.0


def test_prints_nothing_and_its_json_is_strict(capsys):
    dataset = DetectionDataset("one", ["cat", "dog"], [record("0", [[0, 0, 50, 50]], [1])])
    result = score_detections(dataset, [detections([[0, 0, 50, 50]], [0.9], [1])], "coco")
    assert capsys.readouterr().out == ""
    written = json.loads(json.dumps(result.to_json(curves=True), allow_nan=False))
    assert written["metrics"]["AP_large"] is None
    assert written["classes"][1]["ap"] is None
    assert len(written["classes"][0]["precision"]) == 101
    assert "AP_medium" in result.table()
