#!/usr/bin/env bash
# TensorFlow 2.21.0's combined_non_max_suppression orders equal scores by no rule; its non_max_suppression by index.
# Packages: tensorflow-cpu 2.21.0, numpy 2.2.6
# Expected: one rule for both ops of one library. Detections of equal score (8-bit models, equal inputs) come in the order
#   of the boxes, as from non_max_suppression, and a limit on their number keeps the first of them.
# Seen: eight boxes that do not overlap, all with a score of 0.5, come as 0 2 6 5 7 4 1 3, and with a limit of two per
#   class as 0 and 2: the order in which a heap gives them up.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0 numpy==2.2.6
cd "$place"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import numpy as np
import tensorflow as tf

edges = np.arange(8) / 8
boxes = np.stack([edges, 0 * edges, edges + 1 / 8, 0 * edges + 1], axis=1).astype(np.float32)
scores = np.full(8, 0.5, np.float32)


def combined(limit):
    found = tf.image.combined_non_max_suppression(
        boxes[None, :, None], scores[None, :, None], limit, limit, 0.5, 0.1, clip_boxes=False
    )
    return (found.nmsed_boxes[0, :, 0] * 8).numpy().astype(int).tolist()


alone = tf.image.non_max_suppression(boxes, scores, 8, 0.5, 0.1).numpy().tolist()
print("non_max_suppression", alone)
print("combined_non_max_suppression", combined(8), combined(2))
assert alone == [0, 1, 2, 3, 4, 5, 6, 7]
assert combined(8) == [0, 2, 6, 5, 7, 4, 1, 3]
assert combined(2) == [0, 2]
PYTHON
