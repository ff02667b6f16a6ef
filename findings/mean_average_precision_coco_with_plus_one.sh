#!/usr/bin/env bash
# mean-average-precision adds 1 to all widths and heights, in its COCO setting too, so boxes of 0..1 always overlap.
# Packages: mean-average-precision 2024.1.5.0, numpy 2.4.6
# Expected: the setting that its README calls COCO's (mpolicy='soft', 101 recalls) has COCO's IoU between continuous
# edges, which does not depend on the unit of the boxes.
# Seen: boxes that are relative to the image (0..1) and do not even touch match at an IoU of 0.5: AP is 1 instead of 0.
# In pixels, a pair of IoU 0.48 matches as well. Of an IoU of exactly 0.5 in its inclusive pixels, nothing matches.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mean-average-precision==2024.1.5.0 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import numpy as np
from mean_average_precision import MetricBuilder


def average_precision(truth, found):
    metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=1)
    metric.add(np.array([[*found, 0, 0.9]]), np.array([[*truth, 0, 0, 0]]))
    return float(metric.value(iou_thresholds=0.5, recall_thresholds=np.arange(0, 1.01, 0.01), mpolicy="soft")["mAP"])


relative = average_precision([0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.4, 0.4])
pixels = average_precision([0, 0, 10, 10], [0, 0, 10, 4.8])
exactly_half = average_precision([0, 0, 9, 9], [0, 0, 9, 4])  # 10 x 10 and 10 x 5 pixels, corners included
print("apart, relative:", relative, ", IoU 0.48:", pixels, ", inclusive IoU 0.5:", exactly_half)
assert relative == 1.0
assert pixels == 1.0
assert exactly_half == 0.0
PYTHON
