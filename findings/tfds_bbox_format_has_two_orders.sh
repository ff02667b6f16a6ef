#!/usr/bin/env bash
# BBoxFeature(bbox_format="REL_XYXY") of TensorFlow Datasets stores y first or x first, depending on how the box is passed.
# Packages: tensorflow-datasets 4.9.10, numpy 2.4.6
# Expected: the stored order is that of bbox_format, x1 y1 x2 y2, whether the builder passes tfds.features.BBox, which
#   names its sides, or an array.
# Seen: y x y x for a BBox, x y x y for an array. What is on disk cannot be read from the features alone.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import numpy as np
import tensorflow_datasets as tfds

feature = tfds.features.BBoxFeature(bbox_format="REL_XYXY")
of_tuple = feature.encode_example(tfds.features.BBox(ymin=0.2, xmin=0.1, ymax=0.4, xmax=0.3))
of_array = feature.encode_example(np.array([0.1, 0.2, 0.3, 0.4]))
print("BBox:", of_tuple, "array:", of_array)
assert np.allclose(of_tuple, [0.2, 0.1, 0.4, 0.3])
assert np.allclose(of_array, [0.1, 0.2, 0.3, 0.4])
PYTHON
