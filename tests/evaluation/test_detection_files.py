"""Detection files: hand-written files, COCO results as read by pycocotools, round trips, and rejected files."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.writers.coco_results import coco_results, result_image_ids
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.detection_files import read_detections, read_matched, write_comp4

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


# --- names of images, and numbers of classes --------------------------------------------------------------------------


def images_with_objects(names, classes=("a", "b", "c", "d"), source_ids=None):
    """A data set of images of 100 x 200 with one object of each class, in another place in each image."""
    records = []
    for number, name in enumerate(names):
        corners = np.float64([[0.05 + 0.2 * place, 0.1 + 0.08 * number] for place in range(len(classes))])
        boxes = np.concatenate([corners, corners + 0.15], axis=1)
        source_id = source_ids[number] if source_ids else None
        image_id = str(source_id) if source_ids else name
        labels = np.arange(1, len(classes) + 1)
        flags = np.zeros(len(classes), bool)
        records.append(ImageRecord(image_id, f"d/{name}", 100, 200, boxes, labels, flags, source_id=source_id))
    return DetectionDataset("data", classes, records)


def perfect(dataset, image_ids, first=1, **more):
    """Results that find all objects; image ids by position, and classes numbered in order from `first`."""
    results = []
    for record, image_id in zip(dataset, image_ids, strict=True):
        for box, label in zip(record.boxes.astype(float), record.class_ids.tolist(), strict=True):
            ymin, xmin, ymax, xmax = box.tolist()
            window = [200 * xmin, 100 * ymin, 200 * (xmax - xmin), 100 * (ymax - ymin)]
            named = {key: value(record, label) for key, value in more.items()}
            entry = {"image_id": image_id, "category_id": label - 1 + first, "bbox": window, "score": 0.5}
            results.append(entry | named)
    return results


def assert_all_found(path, dataset, *options):
    for record, found in zip(dataset, read_detections(path, dataset, *options), strict=True):
        np.testing.assert_array_equal(found.class_ids, record.class_ids)
        np.testing.assert_allclose(found.boxes, record.boxes, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "image_ids", "how"),
    [
        (["images/val/a.jpg", "images/val/b.jpg"], ["images/val/a.jpg", "images/val/b.jpg"], "id"),
        (["images/val/a.jpg", "images/val/b.jpg"], ["a", "b"], "file name without extension"),
        (["x/cam1/1.png", "x/cam2/1.png"], ["cam1/1.png", "cam2/1.png"], "file name"),
        (["a_0012.png", "a_0013.png"], [12, 13], "number at the end of the file name"),
    ],
)
def test_images_are_matched_by_whatever_name_fits(tmp_path, names, image_ids, how):
    dataset = images_with_objects(names)
    path = write_json(tmp_path, perfect(dataset, image_ids))
    assert_all_found(path, dataset)
    assert read_matched(path, dataset)[1] == f"{path}: detections of 2 of 2 images, matched by {how}"


def test_file_names_beside_the_ids_come_first(tmp_path):
    """Ultralytics writes numbers for stems that are numbers, which here are the ids of other images."""
    dataset = images_with_objects(["2.jpg", "1.jpg"], source_ids=[1, 2])
    named = perfect(dataset, [2, 1], file_name=lambda record, _: record.image_path.rpartition("/")[2])
    path = write_json(tmp_path, named)
    assert_all_found(path, dataset)
    assert "matched by file name" in read_matched(path, dataset)[1]


def test_ids_that_are_numbers_of_other_images_are_not_taken_for_them(tmp_path):
    """Without file names: the stems are found out because they find the objects, and the user decides."""
    dataset = images_with_objects(["2.jpg", "1.jpg"], source_ids=[1, 2])
    path = write_json(tmp_path, perfect(dataset, [2, 1]))
    with pytest.raises(InputError, match=r"0 of 8 objects .* by their id, and 8 by .*; pass --images-by stem, or --im"):
        read_detections(path, dataset)
    assert_all_found(path, dataset, None, "stem")


def test_images_numbered_from_0_are_found_out(tmp_path):
    """The first image has no detections, so that each number is the id of the next image."""
    dataset = images_with_objects([f"{letter}.jpg" for letter in "qwert"], source_ids=[1, 2, 3, 4, 5])
    path = write_json(tmp_path, perfect(dataset, range(5))[4:])
    with pytest.raises(InputError, match=r"0 of 20 objects .* and 16 by their number .* from 0; .*--images-by order-0"):
        read_detections(path, dataset)
    path = write_json(tmp_path, perfect(dataset, range(5)))
    with pytest.raises(InputError, match=r"found the image 0; .*pass --images-by order-0 if these are numbers"):
        read_detections(path, dataset)
    assert_all_found(path, dataset, None, "order-0")


@pytest.mark.parametrize(("first", "ids"), [(0, [1, 2, 3, 4]), (1, [0, 1, 2, 3]), (1, [1, 3, 8, 9]), (0, [2, 3, 4, 5])])
def test_classes_numbered_in_another_way_are_found_out(tmp_path, first, ids):
    """Only detections of classes whose numbers the data set has, too: nothing is unknown."""
    dataset = images_with_objects([f"{letter}.jpg" for letter in "qwertyuiop"])
    category_ids = dict(zip(dataset.class_names, ids, strict=True))
    known = [entry for entry in perfect(dataset, [r.image_id for r in dataset], first) if entry["category_id"] in ids]
    path = write_json(tmp_path, known)
    with pytest.raises(InputError, match=rf"objects with other numbers|with other numbers.*--category-ids {first}"):
        read_detections(path, dataset, category_ids)
    assert sum(map(len, read_detections(path, dataset, first))) == len(known)


def test_an_unknown_number_of_a_class_tells_how_to_count_from_0(tmp_path):
    dataset = images_with_objects(["q.jpg"])
    path = write_json(tmp_path, perfect(dataset, ["q.jpg"], first=0))
    with pytest.raises(InputError, match=r"found the category_id 0; .* or --category-ids 0 if they number the classes"):
        read_detections(path, dataset)
    assert_all_found(path, dataset, 0)


def test_names_of_classes_are_better_than_numbers(tmp_path):
    dataset = images_with_objects(["q.jpg", "w.jpg"])
    named = perfect(dataset, ["q.jpg", "w.jpg"], 0, category_name=lambda _, label: dataset.class_names[label - 1])
    assert_all_found(write_json(tmp_path, named), dataset)


def test_a_poor_detector_is_no_reason_to_refuse(tmp_path):
    """A quarter of the objects found, with the right numbers; and nothing found at all."""
    dataset = images_with_objects([f"{letter}.jpg" for letter in "qwert"], source_ids=[1, 2, 3, 4, 5])
    everything = perfect(dataset, [1, 2, 3, 4, 5])
    assert sum(map(len, read_detections(write_json(tmp_path, everything[::4]), dataset))) == 5
    nowhere = [entry | {"bbox": [150, 1, 40, 3]} for entry in everything]
    assert sum(map(len, read_detections(write_json(tmp_path, nowhere), dataset))) == 20


def test_comp4_files_may_name_files(tmp_path):
    dataset = images_with_objects(["x/q.jpg"], classes=("cat",))
    (tmp_path / "comp4_det_val_cat.txt").write_text("q 0.5 21 6 50 20\n")
    detections, how = read_matched(tmp_path, dataset)
    assert len(detections[0]) == 1
    assert how.endswith("matched by file name without extension")


def test_numbers_that_two_images_would_share_stay_text():
    records = [ImageRecord(name, f"{name}.jpg", 100, 200, [], [], []) for name in ("007", "7", "x")]
    assert result_image_ids(records) == ["007", "7", "x"]
    assert result_image_ids(records[1:]) == [7, "x"]
