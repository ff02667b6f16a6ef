#!/usr/bin/env bash
# OpenVINO's ROIPooling has one row of cells more or less in a bin than Caffe and ONNX Runtime at some heights of a RoI.
# Packages: openvino 2026.4.1, onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6
# Expected: the same bins from the same ONNX file: ROIPooling is documented as that of Fast R-CNN's Caffe, which
# MaxRoiPool of ONNX Runtime follows in every bit, floats included.
# Seen: with 7 x 7 bins and all arithmetic in float32, 7 of the heights from 1 to 299 cells are pooled differently: 57,
# 114, 121, 228, 235, 242 and 249, where h / 7 * 7 is rounded. With 6 or 3 bins there is none.
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

SIDE = 300
# Each cell holds the number of its row, so that the maximum of a bin is its last row.
features = np.tile(np.arange(SIDE, dtype=np.float32)[:, None], (1, SIDE))[None, None]
rois = np.float32([[0, 0, 0, 9, height - 1] for height in range(1, SIDE)])  # batch x1 y1 x2 y2, corners included


def differing_heights(bins):
    node = helper.make_node("MaxRoiPool", ["features", "rois"], ["pooled"], pooled_shape=[bins, bins])
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 1, SIDE, SIDE]),
        helper.make_tensor_value_info("rois", TensorProto.FLOAT, ["n", 5]),
    ]
    outputs = [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", 1, bins, bins])]
    graph = helper.make_graph([node], "pool", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    feeds = {"features": features, "rois": rois}
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    ours, theirs = session.run(None, feeds)[0], compiled(feeds)[0]
    # Caffe's rule, in float32: ceil((bin + 1) * (height / bins)) - 1 is the last row.
    heights = np.arange(1, SIDE, dtype=np.float32)[:, None]
    last = np.ceil(np.arange(1, bins + 1, dtype=np.float32) * (heights / np.float32(bins))) - 1
    np.testing.assert_array_equal(ours[:, 0, :, 0], np.minimum(last, SIDE - 1))
    return [int(rois[n, 4]) + 1 for n in range(len(rois)) if (ours[n] != theirs[n]).any()]


for bins in (7, 6, 3):
    print(f"{bins} x {bins} bins, heights that differ:", differing_heights(bins))
assert differing_heights(7) == [57, 114, 121, 228, 235, 242, 249]
assert differing_heights(6) == differing_heights(3) == []
PYTHON
