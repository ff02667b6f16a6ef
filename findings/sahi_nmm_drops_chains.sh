#!/usr/bin/env bash
# SAHI's NMM deletes boxes that it should merge: a chain of five objects becomes the first two.
# Packages: sahi 0.12.8, numpy 2.4.6
# Expected: non-maximum merging is transitive, as its docstring says: "if A overlaps B and B overlaps C, all three are
# merged even if A does not directly overlap C". Nothing is lost: the result covers all five boxes.
# Seen: with the metric IOU, a box that was assigned to a chain is compared once more, with the union of the boxes
# before it. The union is too large for an IoU of 0.5, so the box is not merged, but it is not returned either. NMS,
# which is known for deleting, keeps three of the five. With the metric IOS the union covers all.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check sahi==0.12.8 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
from sahi.postprocess.combine import NMMPostprocess, NMSPostprocess
from sahi.prediction import ObjectPrediction

# Neighbours have an IoU of 7 / 13, above the threshold; others at most 4 / 16.
chain = [[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [9, 0, 19, 10], [12, 0, 22, 10]]


def combined(postprocess, metric):
    predictions = [
        ObjectPrediction(bbox=box, category_id=1, category_name="car", score=0.9 - 0.1 * index)
        for index, box in enumerate(chain)
    ]
    found = postprocess(match_threshold=0.5, match_metric=metric)(predictions)
    return [[int(value) for value in each.bbox.to_xyxy()] for each in found]


for postprocess in (NMMPostprocess, NMSPostprocess):
    for metric in ("IOU", "IOS"):
        print(postprocess.__name__, metric, combined(postprocess, metric))
assert combined(NMMPostprocess, "IOU") == [[0, 0, 13, 10]]
assert combined(NMMPostprocess, "IOS") == [[0, 0, 22, 10]]
assert combined(NMSPostprocess, "IOU") == [chain[0], chain[2], chain[4]]
PYTHON
