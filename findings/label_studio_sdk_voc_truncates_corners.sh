#!/usr/bin/env bash
# label-studio-sdk 2.1.2 cuts VOC's corners off to whole pixels after arithmetic in percent, so whole pixels lose one.
# Packages: label-studio-sdk 2.1.2
# Expected: a box drawn from x = 3 to 13 and y = 4 to 24 gets these corners (or VOC's 4, 5, 13, 24): whole numbers stay.
# Seen: xmax is 12: 5 % + 16.666666666666664 % of 60 pixels are 12.999999999999998, and int() cuts the rest off.
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
    value = {"x": x / 60 * 100, "y": y / 40 * 100, "width": width / 60 * 100, "height": height / 40 * 100}
    return {
        "id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 60,
        "original_height": 40, "image_rotation": 0, "value": {**value, "rotation": rotation, "rectanglelabels": ["cat"]},
    }


def convert(kind, *annotations):
    """Converts one task for each list of annotations."""
    tasks = [
        {"id": number, "data": {"image": f"/data/upload/1/{number}.png"}, "annotations": each}
        for number, each in enumerate(annotations, 1)
    ]
    json.dump(tasks, open("tasks.json", "w"))
    Converter(INTERFACE, project_dir=None, download_resources=False).convert("tasks.json", "out", kind, is_dir=False)


from xml.etree import ElementTree

convert("VOC", [{"id": 1, "result": [region(3, 4, 10, 20, 0)]}])
box = ElementTree.parse("out/Annotations/1.xml").find("object/bndbox")
found = [int(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax")]
print(found)
assert found == [3, 4, 12, 24], found
PYTHON
