"""LabelMe's JSON files, as LabelMe 6.3.1 writes them."""

import json

import numpy as np
import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.labelme import read_labelme


def shape(label, kind, *points):
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }


def write_file(path, shapes, image=None, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "6.3.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image or f"{path.stem}.png",
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        write_image(tmp_path / "day 1" / f"{name}.png")
    # The second corner of a rectangle may be above and left of the first.
    write_file(tmp_path / "day 1" / "a.json", [shape("dog", "rectangle", [30, 20.5], [6, 10])])
    write_file(tmp_path / "day 1" / "b.json", [])
    return tmp_path


def pixels(dataset, index=0):
    return (dataset[index].boxes * [40, 60, 40, 60]).round(4).tolist()


def test_folder(folder):
    dataset = read_labelme(folder)
    assert dataset.class_names == ("dog",)
    assert [record.image_id for record in dataset] == ["day 1/a.png", "day 1/b.png", "day 1/c.png"]
    assert pixels(dataset) == [[10, 6, 20.5, 30]]
    assert [len(record.boxes) for record in dataset] == [1, 0, 0]
    assert dataset.fixes == {"images without a JSON file (no objects)": 1}
    assert dataset.name == f"labelme:{folder}"


@pytest.mark.parametrize(
    ("kind", "points", "box"),
    [
        ("polygon", [[1.5, 2], [9, 2], [4, 8]], [2, 1.5, 8, 9]),
        ("oriented_rectangle", [[20, 10], [30, 20], [20, 30], [10, 20]], [10, 10, 30, 30]),
        # The centre, and a point on the circle, 5 pixels away.
        ("circle", [[30, 20], [33, 24]], [15, 25, 25, 35]),
        # The first and the last pixel of the mask.
        ("mask", [[10, 11], [16, 15]], [11, 10, 16, 17]),
    ],
)
def test_shapes(folder, kind, points, box):
    write_file(folder / "day 1" / "a.json", [shape("dog", kind, *points)])
    dataset = read_labelme(folder)
    assert pixels(dataset) == [box]
    assert dataset.fixes["outlines and rotated boxes replaced by their bounding boxes"] == 1


@pytest.mark.parametrize("kind", ["point", "line", "linestrip"])
def test_shapes_without_area_are_counted(folder, kind):
    shapes = [shape("dog", kind, [1, 2], [5, 6]), shape("cat", "rectangle", [0, 0], [30, 20])]
    write_file(folder / "day 1" / "a.json", shapes)
    dataset = read_labelme(folder)
    assert dataset.class_names == ("cat",)
    assert dataset.fixes["points, lines and other shapes without an area skipped"] == 1


def test_image_of_another_folder(folder):
    write_image(folder / "images" / "x.jpg")
    write_file(folder / "labels" / "y.json", [shape("dog", "rectangle", [0, 0], [30, 20])], "..\\images\\x.jpg")
    dataset = read_labelme(folder)
    np.testing.assert_allclose(dataset[3].boxes, [[0, 0, 0.5, 0.5]], atol=1e-6)
    assert dataset[3].image_id == "images/x.jpg"


def test_class_names(folder):
    assert read_labelme(folder, ["cat", "dog"])[0].class_ids.tolist() == [2]
    one_line_error(lambda: read_labelme(folder, ["cat"]), "a.json", "'dog'")


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("{", ["a.json: invalid JSON"]),
        ("[]", ["no list `shapes`"]),
        (json.dumps({"shapes": []}), ["found imagePath"]),
        (json.dumps({"shapes": [], "imagePath": "none.png"}), ["no such image"]),
        (json.dumps({"shapes": [5], "imagePath": "a.png"}), ["shape 1", "expected a shape"]),
        (json.dumps({"shapes": [shape("x", "rectangle", [1, 2])], "imagePath": "a.png"}), ["two points"]),
        (json.dumps({"shapes": [shape("x", "polygon", [1, "y"], [2, 3])], "imagePath": "a.png"}), ["points [x, y]"]),
        (json.dumps({"shapes": [shape("", "rectangle", [1, 2], [3, 4])], "imagePath": "a.png"}), ["found label ''"]),
        (json.dumps({"shapes": [], "imagePath": "a.png", "imageWidth": 9, "imageHeight": 9}), ["9x9", "60x40"]),
        (json.dumps({"shapes": [], "imagePath": "a.png", "imageWidth": "wide"}), ["image size"]),
    ],
)
def test_bad_files_give_one_line_or_are_skipped_and_counted(folder, text, patterns):
    (folder / "day 1" / "a.json").write_text(text)
    one_line_error(lambda: read_labelme(folder), "a.json", *patterns)
    dataset = read_labelme(folder, skip_bad=True)
    # The image of the bad file is not background.
    assert [record.image_id for record in dataset] == ["day 1/b.png", "day 1/c.png"]
    assert dataset.fixes["unreadable images or annotations skipped"] == 1


def test_a_folder_without_json_files(tmp_path):
    one_line_error(lambda: read_labelme(tmp_path), "no JSON files")
