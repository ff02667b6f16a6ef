#!/usr/bin/env bash
# pycocotools never counts the annotation with id 0 as found, and globox numbers the annotations of COCO files from 0.
# Packages: globox 2.9.0, pycocotools 2.0.11, numpy 2.4.6
# Expected: ids are labels, so a COCO file that globox writes scores perfect detections with an AP of 1, and globox's
# own evaluator and pycocotools agree.
# Seen: pycocotools says AP 0 where globox says 1, on the file that globox wrote. COCOeval stores the id of the matched
# annotation and reads 0 as no match. With the ids from 1, AP is 1.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check globox==2.9.0 pycocotools==2.0.11 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import contextlib
import io
import json

from globox import Annotation, AnnotationSet, BoundingBox, COCOEvaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def annotations(confidence):
    box = BoundingBox(label="cat", xmin=10, ymin=10, xmax=60, ymax=60, confidence=confidence)
    return AnnotationSet([Annotation(image_id="a", image_size=(100, 100), boxes=[box])])


truth, found = annotations(None), annotations(0.9)
theirs = float(COCOEvaluator(ground_truths=truth, predictions=found).ap())
truth.save_coco("truth.json", label_to_id={"cat": 1}, imageid_to_id={"a": 1})
results = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9}]
with open("results.json", "w") as file:
    json.dump(results, file)


def average_precision(path):
    with contextlib.redirect_stdout(io.StringIO()):
        original = COCO(path)
        evaluation = COCOeval(original, original.loadRes("results.json"), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 6)


with open("truth.json") as file:
    content = json.load(file)
written = [annotation["id"] for annotation in content["annotations"]]
for annotation in content["annotations"]:
    annotation["id"] += 1
with open("from_1.json", "w") as file:
    json.dump(content, file)
print("ids that globox wrote:", written)
print("AP: globox", theirs, ", pycocotools", average_precision("truth.json"), ", ids from 1", average_precision("from_1.json"))
assert written == [0]
assert theirs == 1.0
assert average_precision("truth.json") == 0.0
assert average_precision("from_1.json") == 1.0
PYTHON
