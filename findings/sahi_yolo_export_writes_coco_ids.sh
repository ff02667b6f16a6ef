#!/usr/bin/env bash
# SAHI's export to YOLO writes COCO's category ids as class numbers, next to a data.yml that numbers classes from 0.
# Packages: sahi 0.12.8, numpy 2.4.6, pillow 12.3.0
# Expected: YOLO's class numbers are positions in the `names` of data.yml, so COCO's ids, which may start at 1 and have
# gaps, become 0, 1, ... as in all converters.
# Seen: data.yml says nc: 2 and names: [cat, dog], and the label files have the classes 5 and 2. COCO files with the
# common ids 1 to K have no class 0, an unknown class K, and the names of all others are wrong by one.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check sahi==0.12.8 numpy==2.4.6 pillow==12.3.0
cd "$place"
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import yaml
from PIL import Image
from sahi.utils.coco import Coco


def exported(cat, dog):
    """data.yml and the classes of a cat and a dog with these category ids."""
    folder = Path(f"ids_{cat}_{dog}")
    folder.mkdir()
    Image.new("RGB", (200, 100)).save(folder / "image.png")
    content = {
        "images": [{"id": 1, "file_name": "image.png", "height": 100, "width": 200}],
        "categories": [{"id": cat, "name": "cat"}, {"id": dog, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": cat, "bbox": [10, 20, 40, 30], "area": 1200, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": dog, "bbox": [90, 20, 40, 30], "area": 1200, "iscrowd": 0},
        ],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    coco = Coco.from_coco_dict_or_path(str(folder / "coco.json"), image_dir=str(folder.resolve()))
    coco.export_as_yolo(str(folder / "yolo"), train_split_rate=1.0)
    data = yaml.safe_load(next((folder / "yolo").glob("data.y*ml")).read_text())
    labels = next((folder / "yolo").rglob("image.txt")).read_text().splitlines()
    return data["nc"], data["names"], [int(line.split()[0]) for line in labels]


for ids in ((5, 2), (1, 2), (0, 1)):
    number, names, labels = exported(*ids)
    print("category ids", ids, "-> nc:", number, "names:", names, "classes of the labels:", labels)
    assert (number, names, labels) == (2, ["cat", "dog"], [*ids])
PYTHON
