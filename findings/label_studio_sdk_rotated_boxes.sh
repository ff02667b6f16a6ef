#!/usr/bin/env bash
# label-studio-sdk 2.1.2 writes a rotated box neither to COCO nor to YOLO as its bounding box, and not to both alike.
# Packages: label-studio-sdk 2.1.2
# Expected: the bounding box of the rotated box: 10 x 4 pixels at (30, 10), turned by 90 degrees about that corner, cover x 26 to
#   30 and y 10 to 20 of the image of 60 x 40, as Label Studio shows them; the centre is (28, 15).
# Seen: COCO has x 24 to 30 and y 10 to 16.67, because the box is rotated in percent of the image's sides, which are not equal;
#   YOLO has the box before its rotation, 10 x 4 pixels with the centre (35, 12), which the object hardly touches.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
cd "$place"
venv/bin/python -W ignore - <<'PYTHON'
import json

from label_studio_sdk.converter import Converter

INTERFACE = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="cat"/></RectangleLabels></View>"""


def region(x, y, width, height, rotation):
    """A box of an image of 60 x 40 pixels; rotation is clockwise about its top left corner."""
    value = {"x": x / 0.6, "y": y / 0.4, "width": width / 0.6, "height": height / 0.4, "rotation": rotation}
    return {
        "id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 60,
        "original_height": 40, "image_rotation": 0, "value": {**value, "rectanglelabels": ["cat"]},
    }


def convert(kind, *annotations):
    """Converts one task for each list of annotations."""
    tasks = [
        {"id": number, "data": {"image": f"/data/upload/1/{number}.png"}, "annotations": each}
        for number, each in enumerate(annotations, 1)
    ]
    json.dump(tasks, open("tasks.json", "w"))
    Converter(INTERFACE, project_dir=None, download_resources=False).convert("tasks.json", "out", kind, is_dir=False)


rotated = [{"id": 1, "result": [region(30, 10, 10, 4, 90)]}]
convert("COCO", rotated)
(annotation,) = json.load(open("out/result.json"))["annotations"]
coco = [round(number, 2) for number in annotation["bbox"]]
convert("YOLO", rotated)
_, x, y, width, height = map(float, open("out/labels/1.txt").read().split())
yolo = [round(number, 2) for number in (x * 60, y * 40, width * 60, height * 40)]
print("COCO", coco, "YOLO", yolo)
assert coco == [24.0, 10.0, 6.0, 6.67], coco
assert yolo == [35.0, 12.0, 10.0, 4.0], yolo
PYTHON
