#!/usr/bin/env bash
# TensorFlow 2.21.0: on CPUs without oneDNN, the softmax of equal rows is not equal; it depends on the row's place.
# Packages: tensorflow 2.21.0, numpy 2.2.6
# Expected: equal probabilities for equal logits, so that non-maximum suppression can order tied scores by its own rule.
# Seen: of 37 equal rows, the last 5 differ from the others in the last bits. Eigen computes eight rows at a time by other
#   functions than the rows that are left. With many rows it also happens in the middle, where the part of a thread ends.
#   With oneDNN (TF_ENABLE_ONEDNN_OPTS=1) all rows are equal. TensorFlow uses oneDNN by default only where the CPU has
#   VNNI, AVX512_BF16 or AMX.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 numpy==2.2.6
cd "$place"
cat > equal_rows.py <<'PYTHON'
import os

import numpy as np
import tensorflow as tf

scores = tf.nn.softmax(np.tile(np.float32([0, 2, 2, 1]), (37, 1))).numpy()
different = [row for row in range(37) if (scores[row] != scores[0]).any()]
one_dnn = os.environ["TF_ENABLE_ONEDNN_OPTS"]
print("oneDNN", one_dnn, "rows that differ from the first:", different, "by", np.abs(scores - scores[0]).max())
assert different == ([] if one_dnn == "1" else [32, 33, 34, 35, 36])
PYTHON
for one_dnn in 1 0; do
    TF_ENABLE_ONEDNN_OPTS=$one_dnn TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python equal_rows.py
done
