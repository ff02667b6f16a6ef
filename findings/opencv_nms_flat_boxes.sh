#!/usr/bin/env bash
# OpenCV's NMSBoxes takes all boxes without area to be the same box: one of a class is left, wherever they are.
# Packages: opencv-python-headless 5.0.0.93, numpy 2.4.6
# Expected: a box without area overlaps nothing: an IoU of 0, as in ONNX Runtime, TensorFlow and torchvision, so that
# nothing is dropped. Boxes that were clipped at an edge of the image often have no area.
# Seen: of flat boxes in three corners of an image only the best is kept, even at a threshold of 0.9. IoU is computed as
# 1 - cv::jaccardDistance, which is 0, the same, for two rectangles without area. With a width of 0.001 all are kept.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import cv2
import numpy as np


def kept(width, threshold):
    """Three boxes x, y, width, height, far from each other."""
    boxes = [[0.0, 0.0, width, 50.0], [300.0, 0.0, width, 50.0], [0.0, 200.0, width, 80.0]]
    return np.ravel(cv2.dnn.NMSBoxes(boxes, [0.9, 0.8, 0.7], 0.0, threshold)).tolist()


print("flat:", kept(0.0, 0.9), ", 0.001 wide:", kept(0.001, 0.9))
assert kept(0.0, 0.5) == kept(0.0, 0.9) == [0]
assert kept(0.001, 0.9) == [0, 1, 2]
PYTHON
