#!/usr/bin/env bash
# The kitti builder of TensorFlow Datasets stores boxes with y measured from the bottom of the image.
# Packages: tensorflow-datasets 4.9.10 (kitti 3.3.0), numpy 2.4.6, opencv-python-headless 5.0.0.93
# Expected: rows 20 to 60 of a 100-row image are ymin 0.2, ymax 0.6, as in all other builders: BBoxFeature documents
#   [ymin, xmin, ymax, xmax] and its own thumbnails draw y from the top.
# Seen: ymin 0.4, ymax 0.8: the box is mirrored upside down, and covers pixels that are not the object.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$place"
venv/bin/python - <<'PYTHON'
import io
import tempfile

import cv2
import numpy as np
import tensorflow_datasets as tfds

image = np.zeros((100, 200, 3), np.uint8)
image[20:60, 30:130] = 255  # the car
png = io.BytesIO(cv2.imencode(".png", image)[1].tobytes())
# KITTI: type truncated occluded alpha left top right bottom, and seven numbers in 3D
label = io.BytesIO(b"Car 0.00 0 -1.57 30.00 20.00 130.00 60.00 1.6 1.6 3.9 0 0 10 -1.5\n")
builder = tfds.builder_cls("kitti")(data_dir=tempfile.mkdtemp())
examples = builder._generate_examples(
    [("training/image_2/000000.png", png)], [("training/label_2/000000.txt", label)], "training", {0}
)
(_, example), = examples
box = example["objects"][0]["bbox"]
print(box)
assert np.allclose(box, [0.4, 0.15, 0.8, 0.65])
top, bottom = round(box.ymin * 100), round(box.ymax * 100)
print("mean pixel in the box:", example["image"][top:bottom, 30:130].mean(), "and of the car: 255")
assert example["image"][top:bottom, 30:130].mean() == 127.5
PYTHON
