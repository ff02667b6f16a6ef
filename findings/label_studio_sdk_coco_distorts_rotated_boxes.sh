#!/usr/bin/env bash
# label-studio-sdk 2.1.2 rotates a box in percent of the image's sides for COCO, so on an image that is no square it is distorted.
# Packages: label-studio-sdk 2.1.2
# Expected: the bounding box of the rotated box in pixels: 10 x 4 pixels at (30, 10), turned by 90 degrees about that corner, cover
#   x 26 to 30 and y 10 to 20, as Label Studio shows them.
# Seen: x 24 to 30 and y 10 to 16.67: 6 x 6.67 pixels.
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


convert("COCO", [{"id": 1, "result": [region(30, 10, 10, 4, 90)]}])
(annotation,) = json.load(open("out/result.json"))["annotations"]
found = [round(number, 2) for number in annotation["bbox"]]
print(found)
assert found == [24.0, 10.0, 6.0, 6.67], found
PYTHON
