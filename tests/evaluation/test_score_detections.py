"""Checks of the detections to be scored, and the content of the results."""

import json

import numpy as np
import pytest

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation import score_detections

BOX = [0.1, 0.1, 0.5, 0.5]
DATASET = DetectionDataset("cells", ["red", "white"], [ImageRecord("im1", "im1.jpg", 100, 200, [BOX], [1], [False])])


def found(boxes=(BOX,), scores=(0.9,), classes=(1,)):
    return [Detections(np.float32(boxes), np.float32(scores), np.int32(classes))]


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (found() * 2, "detections of cells: found 2 entries; expected 1, one per image"),
        (found(scores=[np.nan]), "detections of image im1: found score nan at 0; expected finite scores"),
        (found(classes=[0]), "detections of image im1: found class 0 at 0; expected 1..2"),
        (found(classes=[3]), "detections of image im1: found class 3 at 0; expected 1..2"),
        (found(boxes=[[0.1, np.nan, 0.5, 0.5]]), "expected finite boxes"),
        (found(boxes=[[0.5, 0.1, 0.1, 0.5]]), r"found box \[0.5 0.1 0.1 0.5\] at 0; expected \[ymin"),
        (found(boxes=[[10, 20, 50, 100]]), "expected 0 to 1, relative to the image; divide"),
        (found(scores=[0.9, 0.8]), r"found boxes \[1, 4\], scores \[2\], classes \[1\]; expected \[D, 4\]"),
        (found(boxes=BOX), r"found boxes \[4\]"),
    ],
)
@pytest.mark.parametrize("protocol", ["voc07", "coco"])
def test_bad_detections_give_one_line(detections, message, protocol):
    with pytest.raises(InputError, match=message) as error:
        score_detections(DATASET, detections, protocol)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, float("nan")])
def test_bad_threshold(threshold):
    with pytest.raises(InputError, match="iou_threshold: found"):
        score_detections(DATASET, found(), iou_threshold=threshold)


def test_unknown_protocol_names_those_known():
    with pytest.raises(InputError, match="found 'voc12'; expected one of voc07, voc10, coco"):
        score_detections(DATASET, found(), "voc12")


def test_a_box_that_touches_the_edges_or_has_no_area_is_legal():
    boxes = [BOX, [-0.01, 0.0, 1.02, 1.0], [0.3, 0.3, 0.3, 0.6]]
    result = score_detections(DATASET, found(boxes, [0.9, 0.8, 0.7], [1, 1, 1]))
    np.testing.assert_allclose(result.classes[0].precision, [1, 1 / 2, 1 / 3])


def test_json_holds_the_figures_and_curves_only_when_asked():
    result = score_detections(DATASET, found(), "voc10")
    short = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert short == {
        "protocol": "voc10",
        "iou_threshold": 0.5,
        "mean_ap": 1.0,
        "num_images": 1,
        "metrics": {},
        "classes": [
            {"name": "red", "ap": 1.0, "num_objects": 1, "num_detections": 1},
            {"name": "white", "ap": None, "num_objects": 0, "num_detections": 0},
        ],
    }
    curve = result.to_json(curves=True)["classes"][0]
    assert curve["precision"] == [1.0]
    assert curve["recall"] == [1.0]
    assert curve["scores"] == pytest.approx([0.9])


def test_an_image_without_objects_and_a_data_set_without_any():
    empty = DetectionDataset("empty", ["red"], [ImageRecord("im1", "im1.jpg", 10, 10, [], [], [])])
    result = score_detections(empty, found(classes=[1]))
    assert np.isnan(result.mean_ap)
    assert result.to_json()["mean_ap"] is None
