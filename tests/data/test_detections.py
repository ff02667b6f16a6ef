"""`Detections`: selection, names, conversions and drawing, compared with values computed by hand."""

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import Detections, InputError
from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.drawing import draw_detections
from tf_fast_rcnn.data.records import ImageRecord

BOXES = np.float32([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0.5, 0.5, 0.75, 1]])
NAMES = ("cat", "dog", "<ox>")


@pytest.fixture
def found():
    return Detections(BOXES, np.float32([0.875, 0.5, 0.25]), np.int32([2, 1, 3]), NAMES)


def picture():
    return np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)


def test_length_and_iteration(found):
    assert len(found) == len(list(found)) == 3
    box, score, class_id, class_name = next(iter(found))
    np.testing.assert_array_equal(box, BOXES[0])
    assert (score, class_id, class_name) == (0.875, 2, "dog")
    assert [each.class_name for each in found] == found.names == ["dog", "cat", "<ox>"]
    assert found[-1].score == 0.25
    with pytest.raises(IndexError):
        found[3]


def test_nothing_found():
    none = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), NAMES)
    assert len(none) == 0
    assert not none
    assert none.to_dicts() == none.names == list(none) == []
    assert len(none.filter(0.5, "cat")) == len(none[:2]) == len(none[[]]) == 0
    assert repr(none) == "<Detections: none>"
    assert none._repr_html_().startswith("<table>")


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([False, True, False], [1]),
        ([], []),
    ],
    ids=str,
)
def test_selection(found, index, expected):
    chosen = found[index]
    np.testing.assert_array_equal(chosen.boxes, BOXES[expected])
    assert [found.scores[position] for position in expected] == chosen.scores.tolist()
    assert chosen.names == [found.names[position] for position in expected]
    assert chosen.class_names == NAMES


def test_a_mask_of_another_length(found):
    with pytest.raises(IndexError, match=r"found a mask of shape \[2\]; expected \[3\]"):
        found[[True, False]]


def test_filters(found):
    assert found.filter(min_score=0.5).names == ["dog", "cat"]
    assert found.filter(class_names="cat").names == ["cat"]
    assert found.filter(0.3, ["dog", "<ox>"]).names == ["dog"]
    with pytest.raises(InputError, match="class_names: found 'emu'; expected names out of cat, dog, <ox>"):
        found.filter(class_names=["cat", "emu"])
    assert Detections(BOXES, found.scores, found.class_ids).filter(class_names=["2"]).class_ids.tolist() == [2]


def test_unknown_names_are_ids(found):
    assert Detections(BOXES, found.scores, found.class_ids).names == ["2", "1", "3"]
    assert Detections(BOXES, found.scores, found.class_ids, ["cat"]).names == ["2", "cat", "3"]


def test_dicts_are_json(found):
    rows = json.loads(json.dumps(found.to_dicts()))
    assert rows[1] == {"class": "cat", "class_id": 1, "score": 0.5, "box": [0, 0, 1, 1]}
    assert [row["class_id"] for row in rows] == [2, 1, 3]


def test_coco_rows_are_those_of_coco_results(found):
    record = ImageRecord("42", "42.jpg", 40, 80, [], [], [])
    ids = {"cat": 17, "dog": 18, "<ox>": 21}
    rows = found.to_coco(42, ids, image_size=(40, 80))
    assert rows == frcnn.coco_results(DetectionDataset("a", NAMES, [record]), [found], ids)
    assert rows[0] == {"image_id": 42, "category_id": 18, "bbox": pytest.approx([16, 4, 32, 16]), "score": 0.875}
    with_image = Detections(BOXES, found.scores, found.class_ids, NAMES, picture())
    assert [row["category_id"] for row in with_image.to_coco("a")] == [2, 1, 3]
    with pytest.raises(InputError, match="category_ids: found none for class '<ox>'"):
        found.to_coco(42, {"cat": 1, "dog": 2}, (40, 80))
    with pytest.raises(InputError, match="detections: found no image"):
        found.to_coco(42)


def test_drawing(found, tmp_path):
    expected = np.asarray(draw_detections(picture(), found, NAMES, min_score=0.4))
    assert (expected != picture()).any()
    Image.fromarray(picture()).save(tmp_path / "a.png")
    for image in (picture(), Image.fromarray(picture()), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(found.draw(image, min_score=0.4), expected)
    with pytest.raises(InputError, match="detections: found no image"):
        found.draw()


@pytest.mark.parametrize("kind", ["array", "path", "function"])
def test_a_notebook_shows_the_picture(found, tmp_path, kind):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    image = {"array": picture(), "path": tmp_path / "a.png", "function": picture}[kind]
    known = Detections(found.boxes, found.scores, found.class_ids, NAMES, image)
    with Image.open(io.BytesIO(known._repr_png_())) as shown:
        np.testing.assert_array_equal(shown, draw_detections(picture(), found, NAMES))
    assert known._repr_html_() is None
    assert known[:1]._repr_png_() != known._repr_png_()


def test_a_notebook_shows_a_table_without_an_image(found):
    assert found._repr_png_() is None
    table = found._repr_html_()
    assert table.count("<tr>") == 4
    assert "<td>dog<td>0.88<td>0.100<td>0.200<td>0.500<td>0.600" in table
    assert "&lt;ox&gt;" in table
    many = Detections(np.zeros((50, 4)), np.zeros(50), np.ones(50, int))._repr_html_()
    assert many.count("<tr>") == 21
    assert "and 30 more" in many


def test_text(found):
    assert repr(found) == "<Detections: 1 dog, 1 cat, 1 <ox>>"


def test_pickling(found):
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.boxes, found.boxes)
    assert again.class_names == NAMES
