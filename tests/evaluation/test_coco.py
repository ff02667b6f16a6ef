"""COCO metrics from pycocotools: cases computed by hand, and VOC's area under the curve where both must agree."""

import contextlib
import dataclasses
import io
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.readers.coco import coco_category_ids, read_coco
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.writers.coco_results import coco_results
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections
from tf_fast_rcnn.evaluation.breakdown import break_down
from tf_fast_rcnn.evaluation.detection_files import read_detections
from tf_fast_rcnn.evaluation.report import write_report

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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with the images 0.png to 5.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        Image.new("L", (WIDTH, HEIGHT)).save(folder / f"{number}.png")
    return folder


def pycocotools_evaluation(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        original = COCO(str(truth))
        evaluation = COCOeval(original, original.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equals_pycocotools(folder, images, annotations, results, categories=(1, 2)):
    """All twelve metrics and the AP of each class; returns the data and the result."""
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": number, "name": f"class {number}"} for number in categories]
    truth, detected = folder / "truth.json", folder / "results.json"
    truth.write_text(json.dumps(content))
    detected.write_text(json.dumps(results))
    theirs = pycocotools_evaluation(truth, detected)
    dataset = read_coco(truth)
    found = read_detections(detected, dataset, coco_category_ids(truth))
    ours = score_detections(dataset, found, "coco")
    np.testing.assert_allclose(np.nan_to_num(list(ours.metrics.values()), nan=-1), theirs.stats, atol=1e-12)
    for of_class, precision in zip(ours.classes, np.moveaxis(theirs.eval["precision"][..., 0, 2], 2, 0), strict=True):
        assert np.nan_to_num(of_class.ap, nan=-1) == pytest.approx(precision.mean())
    return dataset, found, ours


def image_entry(number, image_id):
    return {"id": image_id, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH}


def annotation_entry(number, image_id, window, category=1, **other):
    plain = {"area": window[2] * window[3], "iscrowd": 0}
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": list(window)} | plain | other


def random_window(rng, decimals):
    """Mostly within the image, partly beyond its edges, sometimes outside or flat; on a coarse grid, so that IoUs are
    often exactly a threshold, or with many decimals."""
    left, top = rng.choice([-40, 0, 20, 40, 580, 700], p=[0.1, 0.3, 0.2, 0.2, 0.15, 0.05]), rng.choice([0, 20, 440])
    width, height = rng.choice([0, 20, 32, 40, 96, 100], 2, p=[0.02, 0.18, 0.2, 0.2, 0.2, 0.2])
    window = np.array([left, top, width, height], float)
    return (window + (np.round(rng.random(4), decimals) if decimals else 0)).tolist()


def random_case(seed):
    """Images whose ids are not in order and objects and detections with ties: arguments of
    `assert_equals_pycocotools`."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation([2, 3, 9, 10, 100, -21]).tolist()
    ids = list(map(str, ids)) if rng.random() < 0.3 else ids  # text is in another order
    images = [image_entry(number, image_id) for number, image_id in enumerate(ids)]
    decimals = int(rng.choice([0, 2, 12]))
    annotations, results = [], []
    for number in range(rng.integers(1, 30)):
        window, category, image_id = random_window(rng, decimals), int(rng.integers(1, 3)), ids[rng.integers(5)]
        area = float(rng.choice([1024, 9216, 1024.001, 300.5])) if rng.random() < 0.4 else window[2] * window[3]
        annotations.append(
            annotation_entry(number + 1, image_id, window, category, area=area or 1.0, iscrowd=int(rng.random() < 0.15))
        )
        for _ in range(rng.integers(0, 3)):
            moved = np.array(window) + rng.choice([0, 0, 10], 4)
            score = rng.integers(1, 5) / 8 + rng.choice([0, 0, 1e-12])
            results.append((image_id if rng.random() < 0.5 else ids[5], category, moved.tolist(), score))
    # Some in the usual place, from which the order of the numbers is seen: as corners or centres they do not fit.
    for window in ([0, 0, 300, 200], [0, 0, 200, 300], [400, 300, 100, 60], [500, 300, 60, 100]):
        annotations.append(annotation_entry(len(annotations) + 1, ids[0], window))
        results.append((ids[0], 1, window, 0.5))
    keys = ("image_id", "category_id", "bbox", "score")
    results = [dict(zip(keys, result, strict=True)) for result in results]
    return images, annotations, [results[index] for index in rng.permutation(len(results))]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_all_figures_are_those_of_pycocotools_with_ties_and_boxes_beyond_the_image(seed, pictures):
    assert_equals_pycocotools(pictures, *random_case(seed))


def test_random_cases_contain_what_decides():
    """Equal scores in different images, images out of the order of ids, clipped, dropped and flat boxes, crowds."""
    cases = [random_case(seed) for seed in range(30)]
    assert any([image["id"] for image in images] != sorted(image["id"] for image in images) for images, _, _ in cases)
    assert {type(images[0]["id"]) for images, _, _ in cases} == {int, str}
    annotations = [annotation for _, annotations, _ in cases for annotation in annotations]
    assert sum(each["bbox"][0] < 0 for each in annotations) > 20
    assert sum(each["bbox"][0] > WIDTH for each in annotations) > 5
    assert sum(each["bbox"][2] == 0 for each in annotations) > 2
    assert sum(each["iscrowd"] for each in annotations) > 20
    ties = [
        {
            (first["image_id"], second["image_id"])
            for first in results
            for second in results
            if first["score"] == second["score"]
        }
        for _, _, results in cases
    ]
    assert sum(any(one != other for one, other in of_case) for of_case in ties) > 20


def test_equal_scores_are_in_the_order_of_ids_as_numbers(pictures):
    """10 stands before 9 in the file, and after it as text; the right detection, in 9, comes first."""
    images = [image_entry(0, 10), image_entry(1, 9)]
    window = [100, 80, 40, 40]
    results = [{"image_id": n, "category_id": 1, "bbox": window, "score": 0.5} for n in (10, 9)]
    truth = [annotation_entry(1, 9, window)]
    *_, result = assert_equals_pycocotools(pictures, images, truth, results)
    assert result.mean_ap == pytest.approx(1.0)
    result = assert_equals_pycocotools(pictures, images, [annotation_entry(1, 10, window)], results)[2]
    assert result.mean_ap == pytest.approx(0.5)


def test_an_object_that_leaves_the_image_keeps_its_box(pictures):
    """Half of the object is beyond the left edge. The detection covers the half inside: IoU 0.5, not 1."""
    annotations = [annotation_entry(1, 7, [-50, 100, 100, 60]), annotation_entry(2, 7, [300, 200, 80, 60])]
    results = [
        {"image_id": 7, "category_id": 1, "bbox": [0, 100, 50, 60], "score": 0.9},
        {"image_id": 7, "category_id": 1, "bbox": [300, 200, 80, 60], "score": 0.8},
    ]
    dataset, _, result = assert_equals_pycocotools(pictures, [image_entry(0, 7)], annotations, results)
    assert dataset.fixes == {"boxes clipped to their image": 1}
    assert result.metrics["AP50"] == pytest.approx(1.0)
    # At the other nine thresholds the first detection is wrong and one of two objects is found: 51 recalls at 1 / 2.
    assert result.metrics["AP"] == pytest.approx((1 + 9 * 51 / 101 / 2) / 10)


def test_an_object_without_area_in_the_image_has_to_be_found_all_the_same(pictures):
    annotations = [annotation_entry(1, 7, [700, 100, 100, 60]), annotation_entry(2, 7, [300, 200, 80, 60])]
    results = [{"image_id": 7, "category_id": 1, "bbox": [300, 200, 80, 60], "score": 0.8}]
    dataset, found, result = assert_equals_pycocotools(pictures, [image_entry(0, 7)], annotations, results)
    assert len(dataset[0].boxes) == 1
    assert result.metrics["AR_100"] == pytest.approx(0.5)
    assert result.classes[0].num_objects == 2
    assert not break_down(dataset, found, result).missed.any()  # there is nothing to show
    only_other = dataset.relabelled(["class 2"], [0, 1])
    assert np.isnan(score_detections(only_other, [detections([], [], [])], "coco").mean_ap)


@pytest.mark.parametrize(("found", "recalls"), [(3, 31), (6, 61), (7, 70), (8, 81)])
def test_k_of_ten_objects_reach_ten_k_plus_one_recalls_but_for_seven(pictures, found, recalls):
    """By hand: all detections are right. np.linspace(0, 1, 101)[70] is greater than 7 / 10, as in COCOeval."""
    windows = [[50 * n, 20, 40, 40] for n in range(10)]
    truth = [annotation_entry(n, 7, window) for n, window in enumerate(windows, start=1)]
    results = [
        {"image_id": 7, "category_id": 1, "bbox": window, "score": 0.9 - n / 100}
        for n, window in enumerate(windows[:found])
    ]
    dataset, detected, result = assert_equals_pycocotools(pictures, [image_entry(0, 7)], truth, results)
    assert result.metrics["AP50"] == pytest.approx(recalls / 101)
    assert break_down(dataset, detected, result).mean_ap == pytest.approx(recalls / 101)


def test_an_annotation_with_the_id_0_is_found_although_pycocotools_never_finds_it(pictures):
    """COCOeval stores the id of a match and takes 0 for none. Ids are labels here."""
    images, window = [image_entry(0, 7)], [100, 80, 40, 40]
    results = [{"image_id": 7, "category_id": 1, "bbox": window, "score": 0.5}]
    assert assert_equals_pycocotools(pictures, images, [annotation_entry(1, 7, window)], results)[2].mean_ap > 0.999
    (pictures / "truth.json").write_text(
        (pictures / "truth.json").read_text().replace('"annotations": [{"id": 1', '"annotations": [{"id": 0')
    )
    assert pycocotools_evaluation(pictures / "truth.json", pictures / "results.json").stats[0] == 0.0
    dataset = read_coco(pictures / "truth.json")
    found = read_detections(pictures / "results.json", dataset, {"class 1": 1, "class 2": 2})
    assert score_detections(dataset, found, "coco").mean_ap == pytest.approx(1.0)


def crowded_case(number=130):
    """`number` objects side by side, found exactly, with scores that fall from left to right."""
    boxes = [[20 * (n // 30), 20 * (n % 30), 20 * (n // 30) + 20, 20 * (n % 30) + 20] for n in range(number)]
    dataset = DetectionDataset("crowded", ["cat"], [record("0", boxes, [1] * number)])
    return dataset, [detections(boxes, np.linspace(0.9, 0.1, number), [1] * number)]


def test_detections_beyond_the_hundred_best_do_not_count_and_are_reported():
    dataset, found = crowded_case()
    result = score_detections(dataset, found, "coco")
    assert result.metrics["AR_100"] == pytest.approx(100 / 130)
    assert (result.max_detections, result.num_beyond) == (100, 30)
    assert "30 detections do not count: they are beyond the 100 best of their class in an image" in result.table()
    assert result.to_json()["detections_beyond"] == 30
    breakdown = break_down(dataset, found, result)
    assert breakdown.counts.sum() == 0  # the other 30 objects are detected, although not scored
    assert not breakdown.missed.any()


def test_the_report_says_how_many_do_not_count_and_calls_none_of_them_missed(tmp_path, pictures):
    dataset, found = crowded_case()
    shown = dataclasses.replace(dataset[0], image_path=str(pictures / "0.png"))
    dataset = dataset.with_records([shown])
    page = write_report(tmp_path, dataset, found, score_detections(dataset, found, "coco")).read_text()
    row = 'detections that do not count, beyond the 100 best of their class in an image</td><td class="found">30</td>'
    assert row in page
    # 24 pictures of objects that are found with low scores; the words are in the caption and the text alternative.
    assert page.count("detected with a score of only") == 2 * 24
    assert "not detected: wrong" not in page
    assert "do not count" not in write_report(tmp_path, dataset, found, score_detections(dataset, found)).read_text()


def test_a_higher_limit_counts_them_and_a_lower_one_fewer():
    dataset, found = crowded_case()
    result = score_detections(dataset, found, "coco", max_detections=200)
    assert list(result.metrics)[6:9] == ["AR_1", "AR_10", "AR_200"]
    assert result.mean_ap == pytest.approx(1.0) == pytest.approx(result.metrics["AR_200"])
    assert (result.num_beyond, "do not count" in result.table()) == (0, False)
    result = score_detections(dataset, found, "coco", max_detections=5)
    assert [name for name in result.metrics if name.startswith("AR_")][:2] == ["AR_1", "AR_5"]
    assert result.metrics["AR_5"] == pytest.approx(5 / 130)
    assert result.num_beyond == 125
    with pytest.raises(InputError, match="max_detections: found 0; expected a whole number from 1"):
        score_detections(dataset, found, "coco", max_detections=0)


def test_an_object_that_no_detection_matches_is_missed_whatever_the_limit():
    dataset, (found,) = crowded_case()
    kept = found[np.arange(130) != 125]
    result = score_detections(dataset, [kept], "coco")
    np.testing.assert_array_equal(np.flatnonzero(break_down(dataset, [kept], result).missed), [125])
