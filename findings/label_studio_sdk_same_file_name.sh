#!/usr/bin/env bash
# label-studio-sdk 2.1.2 writes VOC and YOLO annotations of two tasks whose images have the same file name into one file.
# Packages: label-studio-sdk 2.1.2
# Expected: one annotation file per task, as in its COCO export, which lists both images; names that clash made unique
#   (the converter knows the task ids), or an error, as supervision's export gives one.
# Seen: tasks cam1/0001.png and cam2/0001.png give one Annotations/0001.xml and one labels/0001.txt, with the boxes of
#   the second task alone; no message. The COCO export of the same tasks has both images and both boxes.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
cd "$place"
venv/bin/python - <<'PYTHON'
import json
import os
import pathlib
import re

from label_studio_sdk.converter import Converter

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="label" toName="image"><Label value="cat"/></RectangleLabels></View>'
)


def task(number, image, x):
    """One box of 16 x 12 pixels at column x, row 12, in an image of 64 x 48."""
    value = {"x": 100 * x / 64, "y": 25, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["cat"]}
    result = {"id": "r", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "value": value}
    result |= {"original_width": 64, "original_height": 48}
    annotation = {"id": number, "result": [result], "completed_by": 1, "was_cancelled": False}
    return {"id": number, "data": {"image": image}, "annotations": [annotation]}


os.makedirs("tasks")
tasks = [task(1, "/data/upload/1/cam1/0001.png", 16), task(2, "/data/upload/1/cam2/0001.png", 32)]
pathlib.Path("tasks/tasks.json").write_text(json.dumps(tasks))
converter = Converter(CONFIG, project_dir=".", upload_dir=".")
converter.convert_to_voc("tasks", "voc", is_dir=True)
converter.convert_to_yolo("tasks", "yolo", is_dir=True)
converter.convert_to_coco("tasks", "coco", is_dir=True)

xml = sorted(pathlib.Path("voc").rglob("*.xml"))
corners = re.findall(r"<xmin>(\d+)</xmin>", xml[0].read_text())
labels = sorted(pathlib.Path("yolo/labels").glob("*.txt"))
coco = json.loads(pathlib.Path("coco/result.json").read_text())
print("VOC", [path.name for path in xml], "xmin", corners)
print("YOLO", [path.name for path in labels], labels[0].read_text().split())
print("COCO", [image["file_name"] for image in coco["images"]], len(coco["annotations"]), "boxes")
assert ([path.name for path in xml], corners) == (["0001.xml"], ["32"])
assert [path.name for path in labels] == ["0001.txt"]
assert labels[0].read_text().split() == ["0", "0.625", "0.375", "0.25", "0.25"]
assert (len(coco["images"]), len(coco["annotations"])) == (2, 2)
PYTHON
