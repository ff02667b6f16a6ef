"""Label Studio's exports, as its interface and label-studio-sdk 2.1.2 write them."""

import json

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.label_studio import read_label_studio

# 6, 10, 30, 20.5 in pixels of an image of 60 x 40.
VALUE = {"x": 10.0, "y": 25.0, "width": 40.0, "height": 26.25, "rotation": 0, "rectanglelabels": ["cat"]}
BOX = [10, 6, 20.5, 30]


def region(value=VALUE, kind="rectanglelabels", **more):
    return {
        "id": "x",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": 60,
        "original_height": 40,
        "image_rotation": 0,
        "value": value,
        **more,
    }


def task(number, image, *annotations):
    results = [{"id": number, "was_cancelled": False, "result": result} for result in annotations]
    return {"id": number, "annotations": results, "predictions": [], "data": {"image": image}}


@pytest.fixture
def file(tmp_path):
    """A function that writes tasks, and returns the file's path; the images are a.png, b.png and c.png."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png")

    def write(*tasks):
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        return tmp_path / "export.json"

    return write


def pixels(dataset, index=0):
    return (dataset[index].boxes * [40, 60, 40, 60]).round(4).tolist()


def test_json(file):
    path = file(
        task(1, "/data/upload/1/0a1b2c3d-a.png", [region()]),
        task(2, "/data/upload/1/0a1b2c3d-b.png", []),
        task(3, "/data/upload/1/0a1b2c3d-c.png"),
    )
    dataset = read_label_studio(path)
    assert dataset.class_names == ("cat",)
    # c.png has not been labelled yet: it is not background.
    assert [record.image_id for record in dataset] == ["a.png", "b.png"]
    assert pixels(dataset) == [BOX]
    assert pixels(dataset, 1) == []
    assert dataset.fixes == {"tasks without annotations skipped": 1}


def test_json_min(file):
    value = VALUE | {"original_width": 60, "original_height": 40}
    path = file(
        {"image": "/data/upload/1/0a1b2c3d-a.png", "id": 1, "label": [value], "annotator": 1, "annotation_id": 1},
        {"image": "/data/upload/1/0a1b2c3d-b.png", "id": 2, "annotator": 1, "annotation_id": 2},
        {"image": "/data/upload/1/0a1b2c3d-c.png", "id": 3, "annotator": None, "annotation_id": None},
    )
    dataset = read_label_studio(path)
    assert [record.image_id for record in dataset] == ["a.png", "b.png"]
    assert pixels(dataset) == [BOX]
    assert dataset.fixes == {"tasks without annotations skipped": 1}


@pytest.mark.parametrize(
    "url",
    [
        "/data/local-files/?d=sets%2Fcells/a.png",
        "s3://bucket/cells/a.png",
        "https://example.org/cells/a.png?X-Amz-Date=1&sig=b.png",
        "/data/upload/1/0a1b2c3d-a.png",
        "a.png",
        "/data/local-files/?d=cells%5Ca.png",
    ],
)
def test_addresses_of_images(file, url):
    assert read_label_studio(file(task(1, url, [region()])))[0].image_id == "a.png"


def test_an_upload_whose_own_name_is_here(file, tmp_path):
    write_image(tmp_path / "0a1b2c3d-a.png")
    assert read_label_studio(file(task(1, "/data/upload/1/0a1b2c3d-a.png", [region()])))[0].image_id == "0a1b2c3d-a.png"


@pytest.mark.parametrize(
    ("value", "box"),
    [
        # Rotated clockwise about its top left corner, (30, 10): 10 x 4 pixels become 4 x 10 to the left of it.
        (
            {"x": 50, "y": 25, "width": 100 / 6, "height": 10, "rotation": 90, "rectanglelabels": ["cat"]},
            [10, 26, 20, 30],
        ),
        ({"points": [[10, 10], [50, 20], [30, 90]], "polygonlabels": ["cat"]}, [4, 6, 36, 30]),
        ({"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 0, "ellipselabels": ["cat"]}, [16, 24, 24, 36]),
        ({"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90, "ellipselabels": ["cat"]}, [14, 26, 26, 34]),
    ],
)
def test_shapes(file, value, box):
    dataset = read_label_studio(file(task(1, "a.png", [region(value)])))
    assert pixels(dataset) == [box]
    assert dataset.fixes == {"outlines and rotated boxes replaced by their bounding boxes": 1}


def test_only_regions_with_labels_are_objects(file):
    """A rectangle with a separate label is two results; choices and relations have no region."""
    bare = {key: VALUE[key] for key in ("x", "y", "width", "height", "rotation")}
    results = [
        region(bare, kind="rectangle"),
        region(bare | {"labels": ["cat"]}, kind="labels"),
        {"type": "choices", "value": {"choices": ["good"]}},
        {"type": "relation", "from_id": "x", "to_id": "y"},
        region({"format": "rle", "rle": [1], "brushlabels": ["cat"]}, kind="brushlabels"),
    ]
    dataset = read_label_studio(file(task(1, "a.png", results)))
    assert pixels(dataset) == [BOX]
    assert dataset.fixes == {"points, lines and other shapes without an area skipped": 1}


def test_the_first_annotation_that_was_not_cancelled(file):
    first = task(1, "a.png", [], [region()], [])
    first["annotations"][0]["was_cancelled"] = True
    dataset = read_label_studio(file(first))
    assert pixels(dataset) == [BOX]
    assert dataset.fixes == {"annotations after the first of a task ignored": 1}


@pytest.mark.parametrize(
    ("result", "patterns"),
    [
        ([region(original_width=30, original_height=20)], ["30x20", "60x40"]),
        ([region(original_width=None)], ["original_width"]),
        ([region(), region(original_width=61)], ["original_width"]),
        ([region(image_rotation=90)], ["image_rotation 90"]),
        ([region(VALUE | {"x": None})], ["region 1", "x, y, width, height"]),
        ([region(VALUE | {"rectanglelabels": ["cat", "dog"]})], ["one label"]),
    ],
)
def test_bad_tasks_give_one_line_or_are_skipped_and_counted(file, result, patterns):
    path = file(task(1, "a.png", result), task(2, "b.png", []))
    one_line_error(lambda: read_label_studio(path), "export.json, task 1 (a.png)", *patterns)
    assert [record.image_id for record in read_label_studio(path, skip_bad=True)] == ["b.png"]


@pytest.mark.parametrize("content", [{}, [], [1], [{"a": 1}], {"images": []}])
def test_other_files(tmp_path, content):
    (tmp_path / "x.json").write_text(json.dumps(content))
    one_line_error(lambda: read_label_studio(tmp_path / "x.json"), "x.json", "no tasks")
