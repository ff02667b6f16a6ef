#!/usr/bin/env bash
# label-studio-sdk 2.1.2 writes the same empty YOLO file for a task that nobody has labelled as for one without objects.
# Packages: label-studio-sdk 2.1.2
# Expected: no labels file for a task without annotations, so that an image that is still to be labelled is not trained on as
#   background; the COCO, VOC and CSV exports of the same package tell the two apart or leave them out.
# Seen: an empty labels file for both.
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


import os

convert("YOLO", [{"id": 1, "result": [region(30, 10, 10, 4, 0)]}], [{"id": 2, "result": []}], [])
found = {name: os.path.getsize(f"out/labels/{name}") > 0 for name in sorted(os.listdir("out/labels"))}
print(found)
assert found == {"1.txt": True, "2.txt": False, "3.txt": False}, found
PYTHON
