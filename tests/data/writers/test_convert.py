"""Data sets written in each format and read again: the same boxes, classes and pictures, exactly."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from annotation_files import one_line_error, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.specs import load_dataset
from tf_fast_rcnn.data.writers.convert import convert
from tf_fast_rcnn.data.writers.labelled import exact_numbers, file_names

KINDS = ("voc", "coco", "yolo", "csv")
NAMES = ("traffic light", "cät", "<dog> & \"1\", 'no'", "0")


def record(path, image_id, boxes=(), class_ids=(), **values):
    with Image.open(path) as image:
        width, height = image.size
    flags = values.pop("difficult", [False] * len(boxes))
    return ImageRecord(image_id, str(path), height, width, boxes, class_ids, flags, **values)


@pytest.fixture
def dataset(tmp_path):
    """Images of odd sizes with random boxes, flags, and ids with folders."""
    rng = np.random.default_rng(0)
    records = []
    for number, name in enumerate(["day 1/a.jpg", "day 1/b.v2.png", "day 2/a.jpg", "day 2/empty.png"]):
        path = write_image(tmp_path / "source" / name, 37 + number, 101 - number)
        corners = rng.random((0 if "empty" in name else 12, 2, 2), np.float32) * np.float32(0.5)
        corners += np.float32([[0, 0], [0.5, 0.5]])
        labels = rng.integers(1, 5, len(corners))
        records.append(record(path, f"images/{name}", corners.reshape(-1, 4), labels))
    # An object for each class, so that formats without a list of names know them.
    records.append(record(path, "images/all", [[0, 0, 1, 1]] * 4, [1, 2, 3, 4]))
    return DetectionDataset("made", NAMES, records)


def check_same(found, dataset):
    assert set(found.class_names) == set(dataset.class_names)
    assert len(found) == len(dataset)
    # Formats may read images in another order; their files are copied byte for byte.
    by_name = {file.lower(): one for file, one in zip(file_names(found), found, strict=True)}
    for file, original in zip(file_names(dataset), dataset, strict=True):
        one = by_name[file.lower()]
        assert (one.height, one.width) == (original.height, original.width)
        np.testing.assert_array_equal(one.boxes, original.boxes)
        assert [found.class_names[label - 1] for label in one.class_ids] == [
            dataset.class_names[label - 1] for label in original.class_ids
        ]
        assert Path(one.image_path).read_bytes() == Path(original.image_path).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(dataset, tmp_path, kind):
    if kind == "coco":  # whose reader has the ids of images, not their names
        dataset = dataset.with_records([*dataset[:0], *[_renamed(one, n) for n, one in enumerate(dataset, 7)]])
    summary = convert({"train": dataset}, tmp_path / "out", kind)
    assert summary["images"] == 5
    assert summary["objects"] == 40
    assert summary["lost"] == {}
    found = load_dataset(summary["specs"]["train"])
    check_same(found, dataset)
    assert found.fixes == {}
    if kind in ("coco", "yolo"):
        assert found.class_names == NAMES


def _renamed(one, number):
    return ImageRecord(str(number), one.image_path, one.height, one.width, one.boxes, one.class_ids, one.difficult)


@pytest.mark.parametrize("kind", KINDS)
def test_splits(dataset, tmp_path, kind):
    """Images of both splits have the same names."""
    summary = convert({"train": dataset, "val": dataset[1:3]}, tmp_path / "out", kind)
    assert list(summary["specs"]) == ["train", "val"]
    for split, size in (("train", 5), ("val", 2)):
        found = load_dataset(summary["specs"][split])
        assert len(found) == size
        total = sum(len(one.boxes) for one in (dataset if split == "train" else dataset[1:3]))
        assert sum(len(one.boxes) for one in found) == total


def test_ids_of_coco_come_back(dataset, tmp_path):
    numbered = dataset.with_records([_renamed(one, number) for number, one in enumerate(dataset, 100)])
    summary = convert({"train": numbered}, tmp_path / "out", "coco")
    assert [one.image_id for one in load_dataset(summary["specs"]["train"])] == ["100", "101", "102", "103", "104"]
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [category["id"] for category in content["categories"]] == [1, 2, 3, 4]


FLAGS = {"difficult": [True, False, False], "crowd": [False, True, False], "areas": [0.1, 0.2, 0.05]}
LOST = {
    "voc": {"crowd flags (written as difficult)": 1, "areas of outlines": 3},
    "coco": {"difficult flags": 1},
    "yolo": {"difficult flags": 1, "crowd flags": 1, "areas of outlines": 3},
    "csv": {"areas of outlines": 3},
}


@pytest.mark.parametrize("kind", KINDS)
def test_flags(tmp_path, kind):
    path = write_image(tmp_path / "a.png")
    boxes = [[0, 0, 0.5, 0.5], [0.1, 0.1, 1, 1], [0.2, 0, 0.5, 0.5]]
    dataset = DetectionDataset("made", ("cat",), [record(path, "a", boxes, [1, 1, 1], **FLAGS)])
    summary = convert({"train": dataset}, tmp_path / "out", kind)
    assert summary["lost"] == LOST[kind]
    found = load_dataset(summary["specs"]["train"])[0]
    assert found.difficult.tolist() == {"voc": [True, True, False], "csv": [True, False, False]}.get(kind, [False] * 3)
    assert found.crowd.tolist() == ([False, True, False] if kind in ("coco", "csv") else [False] * 3)
    if kind == "coco":
        np.testing.assert_allclose(found.areas, FLAGS["areas"], rtol=1e-12)


def test_pictures_of_prepared_data(tmp_path):
    """They are in memory, and may have another format than the original file."""
    path = write_image(tmp_path / "a.tif")
    content = write_image(tmp_path / "a.png").read_bytes()
    dataset = DetectionDataset("made", ("cat",), [record(path, "a", [[0, 0, 1, 1]], [1], image_bytes=content)])
    convert({"train": dataset}, tmp_path / "out", "voc")
    assert (tmp_path / "out" / "JPEGImages" / "a.png").read_bytes() == content


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_images_that_exif_turns(tmp_path, kind, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    path = write_image(tmp_path / "a.jpg", exif=tags)
    height, width = (60, 40) if orientation == 6 else (40, 60)
    one = ImageRecord("7", str(path), height, width, [[0.125, 0.25, 0.5, 0.75]], [1], [False])
    summary = convert({"train": DetectionDataset("made", ("cat",), [one])}, tmp_path / "out", kind)
    found = load_dataset(summary["specs"]["train"])
    assert found[0].boxes.tolist() == one.boxes.tolist()
    assert found.fixes == {}


def test_whole_pixels_stay_whole():
    boxes = np.float32([[10 / 37, 6 / 101, 20.5 / 37, 30 / 101]])
    encode = lambda relative: box_algebra.to_voc(relative, 37, 101)  # noqa: E731
    assert exact_numbers(boxes, encode, lambda corners: box_algebra.from_voc(corners, 37, 101)) == [
        ["7", "11", "30", "20.5"]
    ]


SIDES = st.integers(1, 20_000)
FLOATS = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(SIDES, SIDES, st.lists(st.tuples(FLOATS, FLOATS, FLOATS, FLOATS), max_size=4))
def test_any_box_comes_back(height, width, corners):
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    for to_numbers, from_numbers in (
        (box_algebra.to_voc, box_algebra.from_voc),
        (box_algebra.to_coco, box_algebra.from_coco),
        (box_algebra.to_xyxy, box_algebra.from_xyxy),
        (lambda values, **_: box_algebra.to_yolo(values), lambda values, **_: box_algebra.from_yolo(values)),
    ):
        sizes = {"height": height, "width": width}
        texts = exact_numbers(boxes, functools.partial(to_numbers, **sizes), functools.partial(from_numbers, **sizes))
        numbers = np.array([[float(text) for text in row] for row in texts]).reshape(-1, 4)
        # Numbers below 1e-7 of the image are lost in the 1-based corners of VOC and the sums of COCO and YOLO.
        np.testing.assert_allclose(from_numbers(numbers, **sizes), boxes, rtol=6e-8, atol=1e-15)


def test_names_of_files(tmp_path):
    path = write_image(tmp_path / "x.jpg")
    ids = ["a/b", "a/B.png", "a/../../etc/c", "/a/d:1", "a/d_1"]
    records = [record(path, image_id) for image_id in ids]
    assert file_names(records) == ["b.jpg", "B-2.jpg", "etc/c.jpg", "d_1.jpg", "d_1-2.jpg"]
    assert file_names(records, flat=True) == ["b.jpg", "B-2.jpg", "etc_c.jpg", "d_1.jpg", "d_1-2.jpg"]
    assert file_names([record(path, image_id) for image_id in ("x/y/1", "x/y/2")]) == ["1.jpg", "2.jpg"]
    # The ids of COCO are not the names of files.
    others = [write_image(tmp_path / "night" / f"{name}.png") for name in ("0001", "0002")]
    assert file_names([record(other, str(n)) for n, other in enumerate([*others, path])]) == [
        "night/0001.png",
        "night/0002.png",
        "x.jpg",
    ]


def test_nothing_half_written(dataset, tmp_path):
    one_line_error(lambda: convert({"a": dataset}, tmp_path / "out", "vott"), "'vott'", "voc, coco, yolo, csv")
    other = DetectionDataset("made", ("cat",), [])
    one_line_error(lambda: convert({"a": dataset, "b": other}, tmp_path / "out", "voc"), "different classes")
    (tmp_path / "source" / "day 2" / "a.jpg").unlink()
    with pytest.raises(OSError, match=r"a\.jpg"):
        convert({"a": dataset}, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".partial*"))
    (tmp_path / "out").mkdir()
    one_line_error(lambda: convert({"a": dataset}, tmp_path / "out", "voc"), "existing file or folder")
