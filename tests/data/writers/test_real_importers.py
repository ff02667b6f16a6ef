"""What we write, read by annotation tools' own importers: Datumaro 1.13.12 (CVAT's library), label-studio-sdk 2.1.2.

Neither can be installed beside TensorFlow. The tests run where TF_FAST_RCNN_ANNOTATION_TOOLS names the Python of an
environment that has them:

    python -m venv tools && tools/bin/pip install datumaro==1.13.12 label-studio-sdk==2.1.2
    TF_FAST_RCNN_ANNOTATION_TOOLS=$PWD/tools/bin/python pytest tests/data/writers/test_real_importers.py
"""

import json
import os
import subprocess

import numpy as np
import pytest
from annotation_files import write_image

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.writers.convert import convert, save_detections

TOOLS = os.environ.get("TF_FAST_RCNN_ANNOTATION_TOOLS")
pytestmark = pytest.mark.skipif(not TOOLS, reason="TF_FAST_RCNN_ANNOTATION_TOOLS is not set")

NAMES = ("cat", "traffic light", "never seen")
# y, x, y, x in pixels of 40 x 60, in the order of the ids of the classes.
PIXELS = [[4, 12, 22, 42], [10.5, 0, 40, 60]]
BOXES = np.float32(PIXELS) / np.float32([40, 60, 40, 60])
SCORES = [0.9, 0.25]

DATUMARO = """
import json, sys
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
data = Dataset.import_from(sys.argv[1], sys.argv[2])
labels = [label.name for label in data.categories()[AnnotationType.label].items]
found = {item.id: [[labels[a.label], *a.points, a.attributes.get("score")] for a in item.annotations
                   if a.type == AnnotationType.bbox] for item in data}
print(json.dumps([labels, found]))
"""
LABEL_STUDIO = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
interface = LabelInterface(open(sys.argv[1] + "/interface.xml").read())
interface.validate()
tasks = json.load(open(sys.argv[1] + "/tasks.json"))
print(json.dumps([
    [interface.validate_task({"data": task["data"]}), *map(interface.validate_prediction, task["predictions"])]
    for task in tasks
]))
"""
LABEL_STUDIO_YOLO = """
import json, sys
from label_studio_sdk.converter.imports.yolo import convert_yolo_to_ls
out = sys.argv[1] + "/imported.json"
convert_yolo_to_ls(sys.argv[1], out, to_name="image", from_name="label", out_type="predictions", image_ext=".png")
tasks = [task.get("predictions", []) for task in json.load(open(out))]
print(json.dumps([[result["value"] for each in task for result in each["result"]] for task in tasks]))
"""


def ask(program, *arguments):
    done = subprocess.run(
        [TOOLS, "-W", "ignore", "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def images(tmp_path):
    paths = [write_image(tmp_path / "images" / f"{name}.png") for name in ("a", "b")]
    records = [ImageRecord(path.stem, str(path), 40, 60, [], [], []) for path in paths]
    return DetectionDataset("images", NAMES, records)


@pytest.fixture
def annotated(images):
    first, second = images
    first = ImageRecord(first.image_id, first.image_path, 40, 60, BOXES, [1, 2], [False, False])
    return images.with_records([first, second])


DETECTIONS = [Detections(BOXES, SCORES, [1, 2], NAMES), Detections([], [], [], NAMES)]


def check(answer, scores=(None, None)):
    labels, found = answer
    assert labels == list(NAMES)
    assert sorted(found) == ["a", "b"]
    assert found["b"] == []
    # Datumaro reads the annotations of COCO's files from the last to the first.
    boxes = sorted(found["a"])
    for (name, *corners, score), pixels, number, expected in zip(boxes, PIXELS, range(2), scores, strict=True):
        assert name == NAMES[number]
        np.testing.assert_allclose(corners, [pixels[1], pixels[0], pixels[3], pixels[2]], atol=1e-3)
        assert score is None if expected is None else float(score) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_converted_for_datumaro(annotated, tmp_path, kind):
    convert({"train": annotated, "val": annotated[:0]}, tmp_path / "out", kind)
    check(ask(DATUMARO, tmp_path / "out", kind))


def test_converted_to_voc_for_datumaro(annotated, tmp_path):
    """It takes the corners for edges that start at 0, one pixel off VOC's."""
    convert({"train": annotated}, tmp_path / "out", "voc")
    labels, found = ask(DATUMARO, tmp_path / "out", "voc")
    assert labels == list(NAMES)
    assert [each[1:5] for each in found["a"]] == [[13, 5, 42, 22], [1, 11.5, 60, 40]]


def test_detections_for_datumaro(images, tmp_path):
    save_detections(images, DETECTIONS, tmp_path / "coco", "coco", class_names=NAMES)
    check(ask(DATUMARO, tmp_path / "coco", "coco"), SCORES)
    save_detections(images, DETECTIONS, tmp_path / "cvat", "cvat", class_names=NAMES)
    (tmp_path / "images").rename(tmp_path / "cvat" / "images")
    check(ask(DATUMARO, tmp_path / "cvat" / "annotations.xml", "cvat"), SCORES)


def test_detections_for_label_studio(images, tmp_path):
    save_detections(images, DETECTIONS, tmp_path / "out", "label-studio", class_names=NAMES)
    assert ask(LABEL_STUDIO, tmp_path / "out") == [[True, True], [True, True]]
    save_detections(images, DETECTIONS, tmp_path / "yolo", "yolo", class_names=NAMES)
    found = next(values for values in ask(LABEL_STUDIO_YOLO, tmp_path / "yolo") if values)
    assert [value["rectanglelabels"] for value in found] == [["cat"], ["traffic light"]]
    for value, (ymin, xmin, ymax, xmax) in zip(found, BOXES.tolist(), strict=True):
        sides = [value[name] / 100 for name in ("x", "y", "width", "height")]
        np.testing.assert_allclose(sides, [xmin, ymin, xmax - xmin, ymax - ymin], atol=1e-4)
