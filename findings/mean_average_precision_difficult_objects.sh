#!/usr/bin/env bash
# mean-average-precision ignores detections of difficult objects but counts the objects among those to be found.
# Packages: mean-average-precision 2024.1.5.0, numpy 2.4.6
# Expected: as in Pascal VOC's kit, whose column 'difficult' it takes: difficult objects neither help nor harm, so an AP
# of 1 can be reached.
# Seen: with one difficult and one ordinary object, both found exactly, AP is 0.5: recall ends at a half. A class
# without any object counts as 0 in the mean.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mean-average-precision==2024.1.5.0 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import numpy as np
from mean_average_precision import MetricBuilder


def mean_average_precision(difficult, num_classes=1):
    metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=num_classes)
    boxes = [[0, 0, 20, 20], [30, 30, 50, 50]]
    truth = np.array([[*box, 0, flag, 0] for box, flag in zip(boxes, difficult)])
    metric.add(np.array([[*box, 0, 0.9] for box in boxes]), truth)
    return float(metric.value(iou_thresholds=0.5)["mAP"])


ordinary, one_difficult = mean_average_precision([0, 0]), mean_average_precision([1, 0])
print("both ordinary:", ordinary, ", one difficult:", one_difficult)
assert ordinary == 1.0
assert one_difficult == 0.5
assert mean_average_precision([0, 0], num_classes=2) == 0.5
PYTHON
