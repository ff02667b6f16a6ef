#!/usr/bin/env bash
# COCOeval's recall of 0.7 is 0.7000000000000001: who finds 7 of 10 objects reaches 70 of its 101 recalls, not 71.
# Packages: pycocotools 2.0.11, tidecv 1.0.1, numpy 2.4.6
# Expected: k of 10 objects found, all detections right, is an AP50 of (10 k + 1) / 101: recalls 0, 0.01, ... k / 10. Its
# source says that np.linspace is there because np.arange is slightly larger than the true values.
# Seen: so for k = 1 to 6, 8, 9 and 10, but 70 / 101 for k = 7: ten of linspace's 101 numbers (0.35, 0.41, 0.47, 0.57,
# 0.69, 0.7, 0.82, 0.83, 0.94, 0.95) are above the nearest to the decimals. TIDE, whose recalls are the same by name,
# says 71 / 101. 14 of 20, 19 of 20 and 7 of 20 objects are met by it as well.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tidecv==1.0.1 pycocotools==2.0.11 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import contextlib
import io
import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, Data


def steps(found, objects):
    """AP50 in steps of 1 / 101 for COCO and TIDE, with the first of some objects found exactly."""
    windows = [[40 * n, 0, 30, 30] for n in range(objects)]
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": 100, "width": 1000}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": window, "area": 900, "iscrowd": 0}
            for n, window in enumerate(windows, start=1)
        ],
    }
    with open("truth.json", "w") as file:
        json.dump(truth, file)
    results = [
        {"image_id": 1, "category_id": 1, "bbox": window, "score": 0.9 - n / 100}
        for n, window in enumerate(windows[:found])
    ]
    ours, theirs = Data("objects"), Data("detections")
    ours.add_image(1, "a.png")
    for data in (ours, theirs):
        data.add_class(1, "cat")
    for window in windows:
        ours.add_ground_truth(1, 1, window)
    for each in results:
        theirs.add_detection(1, 1, each["score"], each["bbox"])
    with contextlib.redirect_stdout(io.StringIO()):
        original = COCO("truth.json")
        evaluation = COCOeval(original, original.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        of_tide = TIDE().evaluate(ours, theirs, pos_threshold=0.5, mode=TIDE.BOX).ap
    return round(float(evaluation.stats[1]) * 101, 6), round(float(of_tide) * 1.01, 6)


tenths = {found: steps(found, 10) for found in range(1, 11)}
print("found of 10: COCO's, TIDE's AP50 * 101:", tenths)
for found, (of_coco, of_tide) in tenths.items():
    assert of_coco == (70 if found == 7 else 10 * found + 1), (found, of_coco)
    assert of_tide == 10 * found + 1, (found, of_tide)
assert [steps(found, 20) for found in (7, 14, 19)] == [(35, 36), (70, 71), (95, 96)]
PYTHON
