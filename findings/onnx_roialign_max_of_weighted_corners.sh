#!/usr/bin/env bash
# The max mode of RoiAlign in ONNX Runtime takes the largest of a sample's four weighted corners, not the largest
# sample.
# Packages: onnxruntime 1.32.0, onnx 1.23.2, openvino 2026.4.1, numpy 2.4.6
# Expected: max pooling of the bilinearly interpolated samples, as avg averages them: with one sample per bin both modes
# return the same number. OpenVINO does this.
# Seen: of a map that holds 10 everywhere, avg returns 10 and max 2.5 at a sample halfway between four cells; ONNX's
# reference evaluator returns 2.5 too. The maximum of a constant map is not the constant.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 openvino==2026.4.1 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def roi_align(mode):
    node = helper.make_node(
        "RoiAlign", ["features", "rois", "batch"], ["pooled"], mode=mode, output_height=1, output_width=1,
        sampling_ratio=1, spatial_scale=1.0, coordinate_transformation_mode="half_pixel",
    )
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 1, 4, 4]),
        helper.make_tensor_value_info("rois", TensorProto.FLOAT, [1, 4]),
        helper.make_tensor_value_info("batch", TensorProto.INT64, [1]),
    ]
    outputs = [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1, 1, 1, 1])]
    graph = helper.make_graph([node], "roi_align", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)


feeds = {
    "features": np.full((1, 1, 4, 4), 10, np.float32),
    "rois": np.float32([[1, 1, 3, 3]]),  # x1 y1 x2 y2: the only sample is at 1.5, between the cells 1 and 2
    "batch": np.int64([0]),
}
seen = {}
for mode in ("avg", "max"):
    model = roi_align(mode)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    seen[mode] = {
        "ONNX Runtime": session.run(None, feeds)[0].item(),
        "onnx.reference": np.asarray(ReferenceEvaluator(model).run(None, feeds)[0]).item(),
        "OpenVINO": compiled(feeds)[0].item(),
    }
    print(mode, seen[mode])
assert seen["avg"] == {"ONNX Runtime": 10.0, "onnx.reference": 10.0, "OpenVINO": 10.0}
assert seen["max"] == {"ONNX Runtime": 2.5, "onnx.reference": 2.5, "OpenVINO": 10.0}
PYTHON
