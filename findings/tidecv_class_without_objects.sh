#!/usr/bin/env bash
# TIDE's AP counts a class that is detected but has no objects as 0; COCO leaves it out of the mean.
# Packages: tidecv 1.0.1, pycocotools 2.0.11, numpy 2.4.6
# Expected: with threshold 0.5, TIDE's AP is COCO's AP50 times 100: it interpolates at COCO's 101 recalls, and reads
# COCO's files. A class without objects has no recall, so its AP is undefined.
# Seen: one object found exactly and one detection of a class that the data do not have: COCO's AP50 is 1, TIDE's 50.
# Without that detection TIDE's is 100. A subset of a data set that lacks a class scores lower in TIDE.
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

CLASSES = {1: "cat", 2: "dog"}
truth = {
    "images": [{"id": 1, "file_name": "a.png", "height": 100, "width": 100}],
    "categories": [{"id": number, "name": name} for number, name in CLASSES.items()],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
    ],
}
cat = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}
dog = {"image_id": 1, "category_id": 2, "bbox": [50, 50, 20, 20], "score": 0.8}
with open("truth.json", "w") as file:
    json.dump(truth, file)


def of_tide(results):
    objects, detections = Data("objects"), Data("detections")
    objects.add_image(1, "a.png")
    for number, name in CLASSES.items():
        objects.add_class(number, name)
        detections.add_class(number, name)
    for each in truth["annotations"]:
        objects.add_ground_truth(each["image_id"], each["category_id"], each["bbox"])
    for each in results:
        detections.add_detection(each["image_id"], each["category_id"], each["score"], each["bbox"])
    with contextlib.redirect_stdout(io.StringIO()):
        return round(float(TIDE().evaluate(objects, detections, pos_threshold=0.5, mode=TIDE.BOX).ap), 6)


def of_coco(results):
    with contextlib.redirect_stdout(io.StringIO()):
        original = COCO("truth.json")
        evaluation = COCOeval(original, original.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[1]), 6)


print("without the dog: TIDE", of_tide([cat]), ", COCO's AP50", of_coco([cat]))
print("with the dog: TIDE", of_tide([cat, dog]), ", COCO's AP50", of_coco([cat, dog]))
assert (of_tide([cat]), of_coco([cat])) == (100.0, 1.0)
assert (of_tide([cat, dog]), of_coco([cat, dog])) == (50.0, 1.0)
PYTHON
