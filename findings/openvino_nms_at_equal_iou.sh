#!/usr/bin/env bash
# OpenVINO drops a box whose IoU with a better one is exactly the threshold; ONNX Runtime keeps it, from the same file.
# Packages: openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6
# Expected: the same boxes from the same ONNX file: ONNX's NonMaxSuppression, its reference, ONNX Runtime, TensorFlow
# and torchvision suppress only above the threshold.
# Seen: with an IoU of exactly 0.5 and a threshold of 0.5 ONNX Runtime and ONNX's reference return both boxes, OpenVINO
# one. With a threshold of 0, boxes that only touch suppress each other in OpenVINO.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def kept(boxes, scores, threshold):
    """The indices of the boxes [y1, x1, y2, x2] that each runtime keeps."""
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["selected"])
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, len(boxes), 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, len(boxes)]),
        helper.make_tensor_value_info("most", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("selected", TensorProto.INT64, ["n", 3])]
    graph = helper.make_graph([node], "nms", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=9)
    feeds = {
        "boxes": np.float32([boxes]),
        "scores": np.float32([[scores]]),
        "most": np.int64([10]),
        "iou": np.float32([threshold]),
    }
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = {
        "ONNX Runtime": session.run(None, feeds)[0],
        "onnx.reference": ReferenceEvaluator(model).run(None, feeds)[0],
        "OpenVINO": compiled(feeds)[0],
    }
    return {runtime: rows[rows[:, 0] >= 0][:, 2].tolist() for runtime, rows in found.items()}


half = kept([[0, 0, 2, 2], [0, 0, 1, 2]], [0.9, 0.8], 0.5)
print("IoU 0.5, threshold 0.5:", half)
assert half == {"ONNX Runtime": [0, 1], "onnx.reference": [0, 1], "OpenVINO": [0]}
touching = kept([[0, 0, 2, 2], [0, 2, 2, 4]], [0.9, 0.8], 0.0)
print("IoU 0, threshold 0:", touching)
assert touching == {"ONNX Runtime": [0, 1], "onnx.reference": [0, 1], "OpenVINO": [0]}
PYTHON
