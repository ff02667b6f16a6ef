"""COCO files without boxes, with keypoints, and those of LVIS."""

import json

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.coco import read_coco

# Columns 6 to 30 and rows 10 to 21 of an image of 40 x 60, column by column.
MASK = {"size": [40, 60], "counts": [250, 11] + [29, 11] * 23 + [1209]}


@pytest.fixture
def read(tmp_path):
    """A function that reads a file with one image and the annotations."""
    write_image(tmp_path / "val2017" / "000000000009.jpg")

    def read_file(annotations, image=None):
        content = {
            "images": [image or {"id": 9, "file_name": "val2017/000000000009.jpg", "height": 40, "width": 60}],
            "annotations": [{"id": 1, "image_id": 9, "category_id": 3, **each} for each in annotations],
            "categories": [{"id": 3, "name": "cat", "keypoints": ["nose"], "skeleton": []}],
        }
        (tmp_path / "x.json").write_text(json.dumps(content))
        return read_coco(tmp_path / "x.json")

    return read_file


def pixels(dataset):
    return (dataset[0].boxes * [40, 60, 40, 60]).round(4).tolist()


@pytest.mark.parametrize("box", [{}, {"bbox": None}, {"bbox": []}])
@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([[1.5, 2, 9, 2, 4, 8]], [2, 1.5, 8, 9]),
        ([[1.5, 2, 9, 2, 4, 8], [20, 30, 25, 30, 25, 35]], [2, 1.5, 35, 25]),
        (MASK, [10, 6, 21, 30]),
    ],
)
def test_the_box_of_an_outline(read, box, segmentation, expected):
    assert pixels(read([{"segmentation": segmentation, **box}])) == [expected]


def test_a_box_wins_over_the_outline(read):
    assert pixels(read([{"segmentation": MASK, "bbox": [0, 0, 30, 20]}])) == [[0, 0, 20, 30]]


@pytest.mark.parametrize("segmentation", [None, [], [[1, 2]], {"size": [40]}])
def test_neither_box_nor_outline(read, segmentation):
    one_line_error(lambda: read([{"segmentation": segmentation}]), "bbox None", "annotation 1")


def test_keypoints(read):
    keypoints = {"keypoints": [10, 10, 2], "num_keypoints": 1, "bbox": [6, 10, 24, 10.5], "area": 99.5}
    dataset = read([keypoints])
    assert pixels(dataset) == [[10, 6, 20.5, 30]]
    assert dataset.class_names == ("cat",)


def test_lvis(read):
    """LVIS has the address of an image, whose folder tells the images of COCO's training and validation sets apart."""
    image = {
        "id": 9,
        "coco_url": "http://images.cocodataset.org/val2017/000000000009.jpg",
        "height": 40,
        "width": 60,
        "neg_category_ids": [1],
        "not_exhaustive_category_ids": [],
    }
    dataset = read([{"bbox": [6, 10, 24, 10.5], "area": 99.5, "segmentation": [[1, 2, 3, 4, 5, 6]]}], image)
    assert pixels(dataset) == [[10, 6, 20.5, 30]]
    assert dataset[0].image_path.endswith("val2017/000000000009.jpg")
    one_line_error(lambda: read([], image | {"coco_url": None}), "no file_name for image 9")
