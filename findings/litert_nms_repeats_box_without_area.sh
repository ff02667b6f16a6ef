#!/usr/bin/env bash
# LiteRT 2.3.0's NON_MAX_SUPPRESSION_V4 returns a box without area again and again, in place of all boxes after it.
# Packages: ai-edge-litert 2.3.0, flatbuffers 25.12.19, numpy 2.2.6
# Expected: as TensorFlow's op of this name does, four selected boxes, each once: no two of them overlap.
# Seen: the box at the image's edge, clipped to no width, is selected three times, and the two boxes after it are lost.
#   It looks as if a selected box only leaves the heap by suppressing itself: the IoU of such a box with itself is 0.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.2.6
cd "$place"
venv/bin/python - <<'PYTHON'
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

FLOAT, INT = schema.TensorType.FLOAT32, schema.TensorType.INT32
boxes = np.float32([[0, 0, 0.2, 0.4], [0.3, 1, 0.6, 1], [0.4, 0.4, 0.7, 0.7], [0.8, 0.3, 1, 0.6]])
scores = np.float32([0.9, 0.8, 0.7, 0.6])
constants = [np.int32(4), np.float32(0.5), np.float32(0.1)]  # boxes to select, IoU threshold, score threshold

# A model of this one op; three of its five inputs are constants.
model, graph, op, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], [code]
code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.NON_MAX_SUPPRESSION_V4
op.opcodeIndex, op.inputs, op.outputs = 0, [0, 1, 2, 3, 4], [5, 6]
op.builtinOptionsType = schema.BuiltinOptions.NonMaxSuppressionV4Options
op.builtinOptions = schema.NonMaxSuppressionV4OptionsT()
graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [op], [0, 1], [5, 6]
kinds = [("boxes", FLOAT, [4, 4]), ("scores", FLOAT, [4]), ("number", INT, []), ("iou", FLOAT, []), ("score", FLOAT, [])]
for name, kind, shape in [*kinds, ("selected", INT, [4]), ("count", INT, [])]:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, shape, 0
    if 2 <= len(graph.tensors) < 5:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(constants[len(graph.tensors) - 2].tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    graph.tensors.append(tensor)
builder = flatbuffers.Builder(1024)
builder.Finish(model.Pack(builder), b"TFL3")

interpreter = Interpreter(model_content=bytes(builder.Output()))
interpreter.allocate_tensors()
for detail, values in zip(interpreter.get_input_details(), (boxes, scores), strict=True):
    interpreter.set_tensor(detail["index"], values)
interpreter.invoke()
selected, count = (interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details())
print("selected", selected.tolist(), "count", int(count))
assert selected.tolist() == [0, 1, 1, 1]
assert count == 4
PYTHON
