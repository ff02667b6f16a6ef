"""Detection files: hand-written files, COCO results as read by pycocotools, round trips, and rejected files."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from tf_fast_rcnn.data.coco_results import coco_results
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.detection_files import read_detections, write_comp4

# Numbers with leading zeros, like the image ids of VOC.
SIZES = {"000012": (100, 200), "000007": (300, 150), "000031": (50, 80)}
DATASET = DetectionDataset(
    "voc:cells@val",
    ["cat", "wild_cat"],
    [ImageRecord(name, f"{name}.jpg", *size, [], [], []) for name, size in SIZES.items()],
)
IDS = {"cat": 17, "wild_cat": 90}
ENTRY = {"image_id": 7, "category_id": 90, "bbox": [15, 30, 75, 60], "score": 0.5}
LINES = {"cat": "000012 0.25 1 1 200 100\n000012 0.75 11 21 60 70\n", "wild_cat": "000007 0.5 16 31 90 90\n"}


def write_json(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def write_voc(tmp_path, lines, name="comp4_det_val_{}.txt"):
    for class_name, text in lines.items():
        (tmp_path / name.format(class_name)).write_text(text)
    return tmp_path


def random_detections(seed):
    """Boxes inside each image, some with zero area, and scores with all digits of float32."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in DATASET:
        edges = np.sort(rng.random((rng.integers(0, 6), 2, 2)), axis=1).reshape(-1, 4)
        edges[:1, 2:] = edges[:1, :2]
        scores = np.sort(rng.random(len(edges)).astype(np.float32) ** 8)[::-1]
        found.append(Detections(edges.astype(np.float32), scores, rng.integers(1, 3, len(edges)).astype(np.int32)))
    return found


def assert_same(found, expected, pixels):
    """Classes and scores, as float32, are equal; edges differ by less than `pixels` of the smallest image."""
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
        np.testing.assert_array_equal(ours.scores.astype(np.float32), theirs.scores)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=pixels / 50)


def test_coco_results_written_by_hand(tmp_path):
    entries = [ENTRY, ENTRY | {"category_id": 17, "score": 0.75, "bbox": [0, 0, 150.0, 300.0]}]
    empty, found, last = read_detections(write_json(tmp_path, entries), DATASET, IDS)
    assert found.class_ids.tolist() == [1, 2]  # by decreasing score
    assert found.scores.tolist() == [0.75, 0.5]
    np.testing.assert_allclose(found.boxes, [[0, 0, 1, 1], [0.1, 0.1, 0.3, 0.6]], atol=1e-7)
    assert (found.boxes.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float64, np.float64, np.int32)
    assert empty.boxes.shape == last.boxes.shape == (0, 4)


@pytest.mark.parametrize("image_id", [7, "000007"])
def test_image_ids_as_numbers_and_as_text(tmp_path, image_id):
    found = read_detections(write_json(tmp_path, [ENTRY | {"image_id": image_id}]), DATASET, IDS)
    assert [len(of_image.scores) for of_image in found] == [0, 1, 0]


@pytest.mark.parametrize("where", ["", "comp4_det_val_*.txt"])
def test_comp4_files_written_by_hand(tmp_path, where):
    """VOC pixels are 1-based and corners inclusive; "wild_cat" ends with the name of another class."""
    first, second, third = read_detections(write_voc(tmp_path, LINES) / where, DATASET)
    np.testing.assert_allclose(first.boxes, [[0.2, 0.05, 0.7, 0.3], [0, 0, 1, 1]], atol=1e-7)
    assert first.scores.tolist() == [0.75, 0.25]
    assert first.class_ids.tolist() == [1, 1]
    np.testing.assert_allclose(second.boxes, [[0.1, 0.1, 0.3, 0.6]], atol=1e-7)
    assert second.class_ids.tolist() == [2]
    assert len(third.scores) == 0


def test_comp4_lines_are_those_of_the_kit(tmp_path):
    """image_id score xmin ymin xmax ymax; the whole image is 1 1 width height."""
    none = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    whole = Detections(np.float32([[0, 0, 1, 1]]), np.float32([0.5]), np.int32([2]))
    cat, wild = write_comp4(tmp_path / "results", DATASET, [whole, none, none], DATASET.class_names, "val", "comp3")
    assert (cat.name, wild.name) == ("comp3_det_val_cat.txt", "comp3_det_val_wild_cat.txt")
    assert cat.read_text() == ""
    assert wild.read_text() == "000012 0.5 1.000 1.000 200.000 100.000\n"
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [cat.name, wild.name]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_round_trips(seed, tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("files"), random_detections(seed)
    write_comp4(folder / "voc", DATASET, found, DATASET.class_names)
    assert_same(read_detections(folder / "voc", DATASET), found, 0.001)
    results = coco_results(DATASET, found, IDS)
    if not any(max(entry["bbox"]) >= 2 for entry in results) and results:
        return  # only tiny boxes, which are mistaken for relative ones
    assert_same(read_detections(write_json(folder, results), DATASET, IDS), found, 0.0016)


def test_scores_that_float32_would_make_equal_stay_different_when_written_again(tmp_path):
    scores = [0.9, 0.9 - 1e-12, 0.9 - 2e-12]
    found = read_detections(write_json(tmp_path, [ENTRY | {"score": score} for score in scores[::-1]]), DATASET, IDS)
    assert found[1].scores.tolist() == scores
    write_comp4(tmp_path / "voc", DATASET, found, DATASET.class_names)
    again = read_detections(tmp_path / "voc", DATASET)
    assert again[1].scores.tolist() == scores


def test_lines_with_equal_scores_know_their_order_in_the_files(tmp_path):
    lines = "000031 0.5 1 1 80 50\n000012 0.5 1 1 200 100\n000031 0.75 1 1 80 50\n000012 0.5 11 21 60 70\n"
    first, empty, last = read_detections(write_voc(tmp_path, {"cat": lines, "wild_cat": ""}), DATASET)
    assert first.file_positions.tolist() == [1, 3]
    assert first[1:].file_positions.tolist() == [3]
    assert empty.file_positions.tolist() == []
    assert last.file_positions.tolist() == [2, 0]


def test_pycocotools_reads_the_same_boxes(tmp_path):
    found = random_detections(3)
    path = write_json(tmp_path, coco_results(DATASET, found, IDS))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": int(name)} for name in SIZES],
        "categories": [{"id": number} for number in IDS.values()],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(path))
    for record, of_image in zip(DATASET, read_detections(path, DATASET, IDS), strict=True):
        theirs = sorted(loaded.imgToAnns[int(record.image_id)], key=lambda each: -each["score"])
        assert [list(IDS.values())[label - 1] for label in of_image.class_ids] == [
            each["category_id"] for each in theirs
        ]
        for box, each in zip(of_image.boxes, theirs, strict=True):
            left, top, width, height = each["bbox"]
            edges = [top / record.height, left / record.width]
            edges += [(top + height) / record.height, (left + width) / record.width]
            np.testing.assert_allclose(box, edges, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "results.json: found an empty file"),
        (json.dumps([ENTRY])[:-20], "results.json: invalid JSON"),
        ({"annotations": []}, "not a list; expected COCO's results"),
        ([ENTRY, 5], "entry 1: found 5; expected image_id, category_id, bbox and score"),
        ([{"image_id": 7}], "entry 0: found {'image_id': 7}; expected image_id"),
        ([ENTRY | {"image_id": 8}], "entry 0: found the image 8; expected one of the 3 images of voc:cells@val"),
        ([ENTRY | {"image_id": [7]}], r"found the image \[7\]"),
        ([ENTRY | {"category_id": 1}], "found the category_id 1; expected one of 17, 90; pass .* --category-ids"),
        ([ENTRY | {"score": float("nan")}], "found the score nan; expected a finite number"),
        ([ENTRY | {"score": "high"}], "found the score 'high'"),
        ([ENTRY | {"bbox": [1, 2, 3]}], r"found the bbox \[1, 2, 3\]; expected four finite numbers"),
        ([ENTRY | {"bbox": [1, 2, -3, 4]}], r"found the bbox \[1.0, 2.0, -3.0, 4.0\]; expected x, y, width and height"),
        ([ENTRY | {"bbox": [1, 2, float("inf"), 4]}], "expected four finite numbers"),
        ([ENTRY | {"bbox": [0.1, 0.2, 0.4, 0.5]}], r"\[0.1, 0.2, 0.4, 0.5\] of image 000007, and no larger"),
        ([ENTRY | {"bbox": [100, 200, 140, 290]}], r"box \[100.0, 200.0, 140.0, 290.0\] .*, in another format"),
    ],
)
def test_bad_coco_results_give_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as error:
        read_detections(write_json(tmp_path, content), DATASET, IDS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cat": "000012 0.5 1 1 20\n"}, "_cat.txt, line 1: found '000012 0.5 1 1 20'; expected an image id and five"),
        ({"cat": "\n000012 0.5 a 1 20 30\n"}, "line 2: found '000012 0.5 a 1 20 30'"),
        ({"cat": "000012 nan 1 1 20 30\n"}, "line 1: found '000012 nan 1 1 20 30'"),
        ({"cat": "000013 0.5 1 1 20 30\n"}, "line 1: found the image '000013'; expected one of the 3"),
        ({"cat": "000012 0.5 0.1 0.2 0.3 0.4\n", "wild_cat": ""}, "of image 000012, and no larger coordinates"),
        ({"cat": "000012 0.5 90 40 20 30\n"}, "in another format"),
        ({"cat": "000012 0.5 190 90 1 1\n", "wild_cat": "000007 0.5 100 100 150 300\n"}, "reversed"),
        ({"dog": ""}, "comp4_det_val_dog.txt: found a file of an unknown class; expected one of cat, wild_cat"),
        ({"wild_cat": b"\xff\xfe"}, "found no readable text"),
    ],
)
def test_bad_comp4_files_give_one_line(tmp_path, changes, message):
    for name, text in (LINES | changes).items():
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / f"comp4_det_val_{name}.txt").write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_detections(tmp_path, DATASET)
    assert "\n" not in str(error.value)


def test_missing_and_doubled_files(tmp_path):
    with pytest.raises(InputError, match="nowhere: found no detections; expected COCO results"):
        read_detections(tmp_path / "nowhere", DATASET)
    with pytest.raises(InputError, match=r"nowhere.json: cannot read the file"):
        read_detections(tmp_path / "nowhere.json", DATASET)
    write_voc(tmp_path, {"wild_cat": ""})
    with pytest.raises(InputError, match="found no file for class 'cat'; expected one for each class"):
        read_detections(tmp_path, DATASET)
    write_voc(tmp_path, LINES, "comp3_det_test_{}.txt")
    with pytest.raises(InputError, match=r"found comp3_det_test_wild_cat.txt and comp4_det_val_wild_cat.txt"):
        read_detections(tmp_path, DATASET)


@pytest.mark.parametrize("names", [["/m/01g317", "Ram C/V Van"], ["a/b", "b"], ["a\\b", "/"]])
def test_slashes_in_class_names_are_read_back(tmp_path, names):
    dataset = DetectionDataset(DATASET.name, names, DATASET.records)
    found = random_detections(0)
    paths = write_comp4(tmp_path / "results", dataset, found, names)
    assert {path.parent for path in paths} == {tmp_path / "results"}
    assert [path.is_file() for path in paths] == [True, True]
    assert not any(mark in path.name for path in paths for mark in "/\\")
    assert_same(read_detections(tmp_path / "results", dataset), found, 0.001)


def test_nothing_is_written_for_classes_of_one_file(tmp_path):
    with pytest.raises(InputError, match="found the class names a/b, a%2Fb, of which two"):
        write_comp4(tmp_path / "results", DATASET, random_detections(0), ["a/b", "a%2Fb"])
    assert not (tmp_path / "results").exists()


def test_nothing_is_written_for_an_image_id_of_two_lines(tmp_path):
    records = [dataclasses.replace(record, image_id=f"{record.image_id}\n") for record in DATASET]
    with pytest.raises(InputError, match=r"found the image id '.*\\n'; expected one without line breaks"):
        write_comp4(tmp_path / "results", records, random_detections(0), DATASET.class_names)
    assert not (tmp_path / "results").exists()
