"""Boxes in another unit, order or base than their format's: named with the option that reads them, or read by it."""

import json

import numpy as np
import pytest
from annotation_files import one_line_error, write_image
from voc_folder import VocFolder

from tf_fast_rcnn.data.specs import load_dataset

HEIGHT, WIDTH = 240, 320
# Whole pixels, xmin ymin xmax ymax with continuous edges; they touch all borders, and are in all parts of the image.
EDGES = np.float64([[0, 0, 320, 240], [0, 100, 30, 180], [200, 150, 290, 240], [150, 20, 190, 90], [260, 5, 320, 60]])
ONE_BASED = EDGES + np.float64([1, 1, 0, 0])
RELATIVE = EDGES[:, [1, 0, 3, 2]] / [HEIGHT, WIDTH, HEIGHT, WIDTH]


def xywh(edges):
    return np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)


def centred(edges):
    return np.concatenate([(edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]], axis=1)


SIDES = np.float64([WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.fixture
def coco(tmp_path):
    def write(rows):
        write_image(tmp_path / "a.png", HEIGHT, WIDTH)
        annotations = [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": list(row)} for number, row in enumerate(rows)
        ]
        images = [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return f"coco:{tmp_path / 'a.json'}"

    return write


@pytest.fixture
def voc(tmp_path):
    def write(rows):
        folder = VocFolder(tmp_path / "voc")
        folder.image("a.png", HEIGHT, WIDTH)
        folder.annotation("a", [("cat", *row) for row in rows], (WIDTH, HEIGHT))
        folder.split("train", "a\n")
        return f"voc:{folder.path}@train"

    return write


@pytest.fixture
def table(tmp_path):
    def write(rows):
        write_image(tmp_path / "a.png", HEIGHT, WIDTH)
        lines = ["filename,xmin,ymin,xmax,ymax,class", *(f"a.png,{','.join(map(str, row))},cat" for row in rows)]
        (tmp_path / "a.csv").write_text("\n".join(lines))
        return f"csv:{tmp_path / 'a.csv'}"

    return write


def negative_heights(edges):
    """Drawn upwards: x y of the lower left corner, and minus the height."""
    x, y, width, height = xywh(edges).T
    return np.stack([x, y + height, width, -height], axis=1)


@pytest.mark.parametrize(
    ("rows", "order", "found"),
    [
        (xywh(EDGES) / SIDES, "xywh-relative", "all coordinates are in the range 0 to 1; expected pixels"),
        (EDGES / SIDES, "xyxy-relative", "all coordinates are in the range 0 to 1"),
        (xywh(EDGES) / SIDES * 100, "xywh-percent", "as percentages do"),
        (EDGES, "xyxy-edges", "boxes are reversed or beyond their images, read as xywh-edges"),
        (np.tile(centred(EDGES), (4, 1)), "cxcywh-edges", "12 of 20 boxes are reversed or beyond"),
        (negative_heights(EDGES), "xywh-anycorner", "5 of 5 boxes are reversed or beyond"),
    ],
)
def test_other_boxes_in_coco(coco, rows, order, found):
    spec = coco(rows)
    line = one_line_error(lambda: load_dataset(spec), "a.json, image a.png", found, "--boxes-order xywh-edges")
    assert f"pass --boxes-order {order} " in line
    dataset = load_dataset(spec, boxes_order=order)
    np.testing.assert_allclose(dataset[0].boxes, np.resize(RELATIVE, (len(rows), 4)), atol=1e-6)
    assert dataset.fixes == {}


@pytest.mark.parametrize(
    ("rows", "order", "found"),
    [
        (EDGES / SIDES, "xyxy-relative", "in the range 0 to 1"),
        (EDGES / SIDES * 100, "xyxy-percent", "as percentages do"),
        (EDGES, "xyxy-edges", "2 of 5 boxes begin at 0; expected 1 as the first pixel"),
        (EDGES - [0, 0, 1, 1], "xyxy-0based", "2 of 5 boxes begin at 0"),
        (xywh(EDGES), "xywh-edges", "boxes are reversed or beyond"),
    ],
)
def test_other_boxes_in_voc(voc, rows, order, found):
    spec = voc(rows)
    line = one_line_error(lambda: load_dataset(spec), "a.xml", found, "if they are right as xyxy-1based")
    assert order in line.partition("pass --boxes-order")[2].partition(", with which")[0]
    np.testing.assert_allclose(load_dataset(spec, boxes_order=order)[0].boxes, RELATIVE, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "order"),
    [(EDGES / SIDES, "xyxy-relative"), (EDGES / SIDES * 100, "xyxy-percent"), (xywh(EDGES), "xywh-edges")],
)
def test_other_boxes_in_csv(table, rows, order):
    spec = table(rows)
    one_line_error(lambda: load_dataset(spec), "a.csv", f"--boxes-order {order}")
    np.testing.assert_allclose(load_dataset(spec, boxes_order=order)[0].boxes, RELATIVE, atol=1e-6)


def test_the_boxes_of_the_format_pass(coco, voc, table):
    specs = [coco(xywh(EDGES)), voc(ONE_BASED), table(EDGES)]
    for dataset in map(load_dataset, specs):
        np.testing.assert_allclose(dataset[0].boxes, RELATIVE, atol=1e-6)
        assert dataset.fixes == {}


def test_an_order_that_the_user_states_is_not_doubted(voc):
    dataset = load_dataset(voc(EDGES), boxes_order="xyxy-1based")
    np.testing.assert_allclose(dataset[0].boxes[0], [0, 0, 1, 1])
    np.testing.assert_allclose(dataset[0].boxes[1], [99 / 240, 0, 180 / 240, 30 / 320], atol=1e-6)


def test_few_bad_boxes_are_dropped_and_counted_as_ever(coco, voc):
    bad = [[100, 100, -5, 5], [310, 200, 30, 60]]
    dataset = load_dataset(coco([*xywh(EDGES).tolist() * 4, *bad]))
    assert dataset.fixes == {"boxes without area dropped": 1, "boxes clipped to their image": 1}
    one_zero = [[0, 50, 60, 90], *ONE_BASED[2:].tolist() * 40]
    assert load_dataset(voc(one_zero)).fixes == {"boxes clipped to their image": 1}


def test_boxes_that_leave_the_image_by_design_are_clipped(coco):
    """As in COCO's own evaluation of objects that are cut off; they would fit if corners were centres."""
    leaving = [[300, 50, 40, 30], [20, 220, 50, 40], [305, 100, 30, 60]]
    dataset = load_dataset(coco([*leaving, [100, 100, 30, 30], [150, 60, 20, 40], [60, 120, 30, 30]]))
    assert dataset.fixes == {"boxes clipped to their image": 3}
    assert len(load_dataset(coco([[40, 30, 300, 220]]))[0].boxes) == 1


def test_small_objects_in_pixels_are_not_taken_for_fractions(coco):
    """Stars of one pixel, all over the image; the first is in its corner."""
    stars = [[0, 0, 1, 1], [50, 60, 1, 1], [300, 20, 1, 0.5], [319, 239, 1, 1]]
    assert len(load_dataset(coco(stars))[0].boxes) == 4


def test_a_voc_box_of_one_column_is_kept(voc):
    """Its first and its last pixel are the same."""
    dataset = load_dataset(voc([(20, 5, 20, 9), (5, 9, 20, 9), (320, 240, 320, 240), (21, 5, 20, 9)]))
    expected = [[4 / 240, 19 / 320, 9 / 240, 20 / 320], [8 / 240, 4 / 320, 9 / 240, 20 / 320]]
    np.testing.assert_allclose(dataset[0].boxes, [*expected, [239 / 240, 319 / 320, 1, 1]], atol=1e-6)
    assert dataset.fixes == {"boxes without area dropped": 1}


def test_yolo_labels_that_begin_at_the_corner(tmp_path):
    write_image(tmp_path / "images" / "a.png", HEIGHT, WIDTH)
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("cat\n")

    def write(rows):
        lines = (f"0 {' '.join(map(str, row))}\n" for row in rows / SIDES)
        (tmp_path / "labels" / "a.txt").write_text("".join(lines))

    write(centred(EDGES))
    np.testing.assert_allclose(load_dataset(f"yolo:{tmp_path}")[0].boxes, RELATIVE, atol=1e-6)
    write(np.tile(xywh(EDGES), (4, 1)))
    one_line_error(lambda: load_dataset(f"yolo:{tmp_path}"), "a.txt", "they fit as xywh-relative; convert them")


def test_unknown_orders_and_kinds(coco, tmp_path):
    one_line_error(lambda: load_dataset(coco(EDGES), boxes_order="xy"), "'xy'", "xywh-edges")
    one_line_error(lambda: load_dataset(f"yolo:{tmp_path}", boxes_order="xywh-edges"), "voc, coco, csv", "leave it out")
