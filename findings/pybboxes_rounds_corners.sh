#!/usr/bin/env bash
# pybboxes rounds the corners of boxes to whole pixels when it converts to COCO, Pascal VOC or Fiftyone, float input or
# not.
# Packages: pybboxes 0.2.0, numpy 1.24.2
# Expected: arithmetic on floats: COCO's own boxes have two decimals, and going from VOC to COCO is a subtraction.
# Seen: a box of 39.6 x 39.6 pixels becomes 39 x 39, smaller than either rounding of its size, and YOLO -> COCO -> YOLO
# of a 0.333 side returns 0.34.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check pybboxes==0.2.0 numpy==1.24.2
cd "$place"
venv/bin/python - <<'PYTHON'
import pybboxes

size = (100, 100)
to_coco = pybboxes.convert_bbox((10.6, 10.6, 50.2, 50.2), from_type="voc", to_type="coco", image_size=size)
middle = pybboxes.convert_bbox((0.5, 0.5, 0.333, 0.333), from_type="yolo", to_type="coco", image_size=size)
back = pybboxes.convert_bbox(middle, from_type="coco", to_type="yolo", image_size=size)
print("VOC 10.6 .. 50.2 -> COCO", to_coco, ", YOLO 0.333 -> COCO", middle, "-> YOLO", back)
assert to_coco == (11, 11, 39, 39)
assert middle == (33, 33, 34, 34)
assert back == (0.5, 0.5, 0.34, 0.34)
PYTHON
