#!/usr/bin/env bash
# LiteRT 2.3.0's soft-NMS drops boxes at or above the IoU threshold; in TensorFlow 2.21.0 the same op ignores the threshold.
# Packages: tensorflow-cpu 2.21.0, ai-edge-litert 2.3.0, numpy 2.2.6
# Expected: a model with tf.image.non_max_suppression_with_scores returns the same boxes after its conversion. Its
#   documentation says: "when soft_nms_sigma > 0, Soft-NMS is performed and iou_threshold is ignored".
# Seen: TensorFlow keeps all four boxes and lowers the scores of two. LiteRT drops these two at an IoU threshold of 0.3,
#   and at 1, the highest that TensorFlow allows, still the one that equals the first box.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow-cpu==2.21.0 ai-edge-litert==2.3.0 numpy==2.2.6
cd "$place"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'PYTHON'
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

# The second box is the first, the third overlaps both by a third, the fourth touches nothing.
boxes = np.float32([[0, 0, 2, 2], [0, 0, 2, 2], [0, 1, 2, 3], [4, 4, 8, 8]])
scores = np.float32([0.9, 0.8, 0.7, 0.3])


def models(iou_threshold):
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([4, 4], name="boxes"), tf.TensorSpec([4], name="scores")])
    def soft_nms(boxes, scores):
        kept, lowered, count = tf.raw_ops.NonMaxSuppressionV5(
            boxes=boxes,
            scores=scores,
            max_output_size=4,
            iou_threshold=iou_threshold,
            score_threshold=0.05,
            soft_nms_sigma=0.5,
            pad_to_max_output_size=True,
        )
        return {"kept": kept, "lowered": lowered, "count": count}

    function = soft_nms.get_concrete_function()
    converted = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module()).convert()
    return soft_nms, Interpreter(model_content=converted).get_signature_runner()


def kept(run):
    found = {name: np.array(value) for name, value in run(boxes=boxes, scores=scores).items()}
    count = int(found["count"])
    return found["kept"][:count].tolist(), found["lowered"][:count].astype(float).round(3).tolist()


found = {(threshold, name): kept(run) for threshold in (0.3, 1.0) for name, run in zip(("tf", "litert"), models(threshold))}
for key, value in found.items():
    print(*key, *value)
assert found[0.3, "tf"] == found[1.0, "tf"] == ([0, 2, 3, 1], [0.9, 0.626, 0.3, 0.263])
assert found[0.3, "litert"] == ([0, 3], [0.9, 0.3])
assert found[1.0, "litert"] == ([0, 2, 3], [0.9, 0.626, 0.3])
PYTHON
