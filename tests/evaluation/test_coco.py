"""COCO metrics from pycocotools: cases computed by hand, and VOC's area under the curve where both must agree."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_fast_rcnn.data.coco_results import coco_results
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.readers.coco import coco_category_ids, read_coco
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.errors import InputError
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
    """COCO area ranges include both ends; rounding of relative edges must not move an object out of its range."""
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
    """With one object and one detection per image, the matching of VOC and that of COCO are the same."""
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


def with_crowd(boxes, crowd):
    return ImageRecord("7", "7.jpg", HEIGHT, WIDTH, relative(boxes), [1] * len(boxes), [False] * len(boxes), crowd)


@pytest.mark.parametrize("protocol", ["coco", "voc10"])
def test_detections_on_a_crowd_count_for_nothing(protocol):
    boxes = [[0, 0, 200, 200], [300, 300, 400, 400]]
    dataset = DetectionDataset("crowd", ["person"], [with_crowd(boxes, [True, False])])
    result = score_detections(dataset, [detections(boxes, [0.9, 0.8], [1, 1])], protocol)
    assert result.mean_ap == pytest.approx(1.0)
    assert result.classes[0].num_objects == 1


def test_many_detections_inside_a_crowd_are_no_false_positives():
    """COCO: the overlap with a crowd is the fraction of the detection inside it, and a crowd matches any number."""
    found = [[0, 0, 50, 50], [100, 100, 150, 150], [300, 300, 400, 400]]
    dataset = DetectionDataset("crowd", ["person"], [with_crowd([[0, 0, 200, 200], found[2]], [True, False])])
    result = score_detections(dataset, [detections(found, [0.9, 0.8, 0.7], [1, 1, 1])], "coco")
    assert result.mean_ap == pytest.approx(1.0)


def test_results_score_as_pycocotools_scores_them_on_the_original_file(tmp_path):
    """A COCO file with gaps in its ids is read and detections are written: pycocotools alone gets the same metrics."""
    rng = np.random.default_rng(5)
    classes = {90: "toothbrush", 1: "person", 13: "stop sign"}
    images = [{"id": 1000 - 7 * n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(6)]
    annotations, found = [], []
    for image in images:
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / image["file_name"])
        windows = np.concatenate([rng.integers(0, 200, (9, 2)), rng.integers(20, 250, (9, 2))], axis=1)
        categories, shares = rng.choice(list(classes), 9), rng.uniform(0.1, 1, 9)
        annotations += [
            {"image_id": image["id"], "category_id": int(category), "bbox": window.tolist(), "iscrowd": int(n == 8)}
            # The area of a mask inside the box; it determines the size class.
            | {"area": float(window[2] * window[3] * shares[n]), "id": len(annotations) + n + 1}
            for n, (window, category) in enumerate(zip(windows, categories, strict=True))
        ]
        left, top, width, height = (windows + rng.integers(0, 20, windows.shape)).T
        labels = [sorted(classes).index(category) + 1 for category in categories]
        edges = np.stack([top, left, top + height, left + width], axis=1)
        found.append(detections(edges, rng.random(9), labels))
    categories = [{"id": number, "name": name} for number, name in classes.items()]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))

    dataset = read_coco(truth)
    results = tmp_path / "results.json"
    results.write_text(json.dumps(coco_results(dataset, found, coco_category_ids(truth))))
    original = COCO(str(truth))
    evaluation = COCOeval(original, original.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = score_detections(dataset, found, "coco").metrics
    assert 0.1 < ours["AP"] < 0.9
    np.testing.assert_allclose(np.nan_to_num(list(ours.values()), nan=-1), evaluation.stats, atol=1e-9)


def test_results_of_labels_and_of_named_images():
    dataset = DetectionDataset("named", ["cat", "dog"], [record("scan_7", [], [])])
    found = [detections([[48, 64, 96, 192]], [0.5], [2])]
    (result,) = coco_results(dataset, found)
    assert result == {"image_id": "scan_7", "category_id": 2, "bbox": [64.0, 48.0, 128.0, 48.0], "score": 0.5}
    with pytest.raises(InputError, match="category ids: found none for class 'dog'"):
        coco_results(dataset, found, {"cat": 17})
