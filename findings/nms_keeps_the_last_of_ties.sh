#!/usr/bin/env bash
# The suppressions of supervision and ensemble-boxes keep the last of boxes with equal scores, not the first.
# Packages: supervision 0.31.2, ensemble-boxes 1.0.9, numpy 2.4.6
# Expected: of two overlapping boxes with the same score the first stays, as in ONNX Runtime, torchvision's CPU kernel,
# OpenCV and all stable sorts by decreasing score.
# Seen: both keep the second box: they sort by increasing score and read the result from its end.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check supervision==0.31.2 ensemble-boxes==1.0.9 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import ensemble_boxes
import numpy as np
import supervision

boxes, scores = np.float32([[0, 0, 1, 1], [0, 0, 1, 0.9]]), np.float32([0.5, 0.5])
detections = supervision.Detections(xyxy=boxes, confidence=scores, class_id=np.array([0, 0]))
of_supervision = detections.with_nms(threshold=0.5).xyxy
of_ensemble_boxes, *_ = ensemble_boxes.nms([boxes], [scores], [[0, 0]], iou_thr=0.5)
print("supervision", of_supervision.tolist(), ", ensemble-boxes", of_ensemble_boxes.tolist())
np.testing.assert_array_equal(of_supervision, boxes[1:])
np.testing.assert_array_equal(np.float32(of_ensemble_boxes), boxes[1:])
# Without the tie the order does not matter: the better box stays.
for best in (0, 1):
    different = scores + np.float32(0.1) * (np.arange(2) == best)
    kept = supervision.Detections(xyxy=boxes, confidence=different, class_id=np.array([0, 0])).with_nms(0.5).xyxy
    np.testing.assert_array_equal(kept, boxes[best : best + 1])
PYTHON
