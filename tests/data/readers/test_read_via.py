"""Annotations of the VGG Image Annotator 1 and 2, as JSON and as projects."""

import json

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.via import read_via

RECTANGLE = {"name": "rect", "x": 6, "y": 10, "width": 24, "height": 10.5}


def region(shape=RECTANGLE, attributes=None):
    return {"shape_attributes": shape, "region_attributes": {"label": "cat"} if attributes is None else attributes}


def write(folder, *regions, wrap=lambda images: images):
    for name in ("a.png", "b.png"):
        write_image(folder / name)
    images = {
        "a.png123": {"filename": "a.png", "size": 123, "regions": list(regions), "file_attributes": {}},
        "b.png456": {"filename": "b.png", "size": 456, "regions": [], "file_attributes": {}},
    }
    (folder / "via.json").write_text(json.dumps(wrap(images)))
    return folder / "via.json"


def project(images):
    return {
        "_via_settings": {},
        "_via_img_metadata": images,
        "_via_attributes": {},
        "_via_data_format_version": "2.0.10",
    }


def version_1(images):
    for image in images.values():
        image["regions"] = {str(number): each for number, each in enumerate(image["regions"])}
        image |= {"fileref": "", "base64_img_data": ""}
    return images


@pytest.mark.parametrize("wrap", [lambda images: images, project, version_1])
def test_files(tmp_path, wrap):
    path = write(tmp_path, region(), wrap=wrap)
    dataset = read_via(path)
    assert dataset.class_names == ("cat",)
    assert [record.image_id for record in dataset] == ["a.png", "b.png"]
    assert (dataset[0].boxes * [40, 60, 40, 60]).round(4).tolist() == [[10, 6, 20.5, 30]]
    assert dataset.name == f"via:{path}"


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"name": "polygon", "all_points_x": [1.5, 9, 4], "all_points_y": [2, 2, 8]}, [2, 1.5, 8, 9]),
        ({"name": "circle", "cx": 30, "cy": 20, "r": 5}, [15, 25, 25, 35]),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 5, "ry": 3}, [17, 25, 23, 35]),
        ({"name": "ellipse", "cx": 30, "cy": 20, "rx": 5, "ry": 3, "theta": 1.5707963267948966}, [15, 27, 25, 33]),
    ],
)
def test_shapes(tmp_path, shape, box):
    dataset = read_via(write(tmp_path, region(shape)))
    assert (dataset[0].boxes * [40, 60, 40, 60]).round(4).tolist() == [box]
    assert dataset.fixes == {"outlines and rotated boxes replaced by their bounding boxes": 1}


def test_points_are_skipped(tmp_path):
    point = region({"name": "point", "cx": 1, "cy": 2})
    assert read_via(write(tmp_path, point, region())).fixes == {
        "points, lines and other shapes without an area skipped": 1
    }


@pytest.mark.parametrize(
    "attributes",
    [
        {"animal": "cat"},
        {"Class": "cat", "sex": "f"},
        {"animal": {"cat": True, "dog": False}},
        {"type": "cat", "a": ""},
    ],
)
def test_the_attribute_of_the_class(tmp_path, attributes):
    assert read_via(write(tmp_path, region(attributes=attributes))).class_names == ("cat",)


@pytest.mark.parametrize(
    ("regions", "pattern"),
    [
        ([region(attributes={"animal": "cat", "sex": "f"})], "animal, sex"),
        ([region(attributes={})], "the class"),
        ([region(attributes={"animal": {"cat": True, "dog": True}})], "the class (animal)"),
        ([region({"name": "rect", "x": 6, "y": 10, "width": None, "height": 1})], "x, y, width, height"),
        ([region({"name": "polygon", "all_points_x": [], "all_points_y": []})], "all_points_x"),
    ],
)
def test_bad_regions_are_one_line(tmp_path, regions, pattern):
    path = write(tmp_path, *regions)
    one_line_error(lambda: read_via(path), "via.json", pattern)


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": 1}', '{"images": [], "annotations": []}'])
def test_other_files(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    one_line_error(lambda: read_via(tmp_path / "x.json"), "x.json", "VIA's annotations")
