"""Detections as annotations to correct: our readers read what annotation tools load, with the same boxes."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.specs import load_dataset
from tf_fast_rcnn.data.writers.convert import SAVE_KINDS, save_detections

NAMES = ("cat", "traffic light", "never seen")
BOXES = np.float32([[0.1, 0.2, 0.55, 0.7], [1 / 3, 0, 1, 1]])
SPECS = {
    "voc": "voc:{out}",
    "yolo": "yolo:{out}",
    "coco": "coco:{out}/annotations/instances_default.json,{images}",
    "label-studio": "label-studio:{out}/tasks.json,{images}",
    "cvat": "cvat:{out}/annotations.xml,{images}",
}


@pytest.fixture
def images(tmp_path):
    paths = [write_image(tmp_path / "images" / name) for name in ("a b.jpg", "night/c.png")]
    records = [ImageRecord(str(path), str(path), 40, 60, [], [], []) for path in paths]
    return DetectionDataset("images", NAMES, records)


DETECTIONS = [Detections(BOXES, np.float32([0.9, 0.25]), [2, 1], NAMES), Detections([], [], [], NAMES)]


@pytest.mark.parametrize("kind", SAVE_KINDS)
def test_what_tools_load_is_what_was_detected(images, tmp_path, kind):
    files = save_detections(images, DETECTIONS, tmp_path / "out", kind, class_names=NAMES)
    assert all((tmp_path / "out" / file).exists() for file in files)
    if kind == "label-studio":  # Predictions count as annotations once someone has accepted them.
        _accept(tmp_path / "out" / "tasks.json")
    dataset = load_dataset(SPECS[kind].format(out=tmp_path / "out", images=tmp_path / "images"), class_names=NAMES)
    assert len(dataset) == 2
    np.testing.assert_allclose(dataset[0].boxes, BOXES, atol=0 if kind != "label-studio" else 1e-7)
    assert dataset[0].class_ids.tolist() == [2, 1]
    assert len(dataset[1].boxes) == 0


def _accept(path):
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        task |= {"id": number, "annotations": [{"result": task.pop("predictions")[0]["result"]}]}
    path.write_text(json.dumps(tasks))


def test_scores(images, tmp_path):
    for kind in SAVE_KINDS:
        save_detections(images, DETECTIONS, tmp_path / kind, kind, class_names=NAMES, model_version="v7")
    scores = [0.9, 0.25]
    root = ET.parse(tmp_path / "voc" / "a b.xml").getroot()
    assert [float(each.text) for each in root.findall("object/attributes/attribute/value")] == pytest.approx(scores)
    assert json.loads((tmp_path / "yolo" / "scores.json").read_text()) == {"a b.jpg": scores, "night_c.png": []}
    content = json.loads((tmp_path / "coco" / "annotations" / "instances_default.json").read_text())
    assert [each["score"] for each in content["annotations"]] == scores
    root = ET.parse(tmp_path / "cvat" / "annotations.xml").getroot()
    assert [float(each.text) for each in root.iter("attribute")] == pytest.approx(scores)
    assert [each.text for each in root.findall("meta/task/labels/label/name")] == list(NAMES)
    task = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())[0]
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("v7", 0.25)
    assert [region["score"] for region in prediction["result"]] == scores
    assert task["data"]["image"] == "/data/local-files/?d=a%20b.jpg"


def test_address_of_images(images, tmp_path):
    options = {"class_names": NAMES, "image_url": "s3://bucket/cells/"}
    save_detections(images, DETECTIONS, tmp_path / "out", "label-studio", **options)
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == ["s3://bucket/cells/a%20b.jpg", "s3://bucket/cells/night/c.png"]


def test_only_new_folders(images, tmp_path):
    (tmp_path / "out").mkdir()
    for kind in SAVE_KINDS:
        one_line_error(
            lambda kind=kind: save_detections(images, DETECTIONS, tmp_path / "out", kind, class_names=NAMES),
            "existing file or folder",
        )
    one_line_error(lambda: save_detections(images, DETECTIONS, tmp_path / "x", "vott", class_names=NAMES), "'vott'")
