#!/usr/bin/env bash
# Datumaro 1.13.12 returns the images of a COCO file, and the annotations of an image, from the last to the first.
# Packages: datumaro 1.13.12, numpy 2.2.6, pillow 12.3.0
# Expected: the order of the file, as pycocotools and other readers have it, and as Datumaro's own YOLO and CVAT readers keep
#   the objects of an image.
# Seen: images c, b, a and boxes 3, 2, 1 of a file that lists a, b, c and 1, 2, 3: indices of detections do not fit.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check datumaro==1.13.12 numpy==2.2.6 pillow==12.3.0
cd "$place"
venv/bin/python -W ignore - <<'PYTHON'
import json
import os

from datumaro.components.dataset import Dataset
from PIL import Image

os.makedirs("set/annotations")
os.makedirs("set/images/train")
for name in "abc":
    Image.new("RGB", (60, 40)).save(f"set/images/train/{name}.png")
content = {
    "images": [{"id": number, "file_name": f"{name}.png", "width": 60, "height": 40} for number, name in enumerate("abc", 1)],
    "annotations": [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [number, 0, 10, 10], "area": 100,
         "iscrowd": 0, "segmentation": []}
        for number in (1, 2, 3)
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
json.dump(content, open("set/annotations/instances_train.json", "w"))
data = Dataset.import_from("set", "coco")
images = [item.id for item in data]
boxes = [int(annotation.points[0]) for item in data for annotation in item.annotations]
print(images, boxes)
assert images == ["c", "b", "a"] and boxes == [3, 2, 1], (images, boxes)
PYTHON
