"""Runs exported TF Lite files and TensorFlow.js models without this package: by interpreters in processes of their own,
and in Node.js."""

import json
import pickle
import subprocess
import sys

import numpy as np

import tf_fast_rcnn as frcnn

# Runs the signature on inputs of a pickle: by LiteRT's interpreter, or TensorFlow's older one.
TFLITE_RUNNER = """
import pickle, sys
model, kind, calls, results = sys.argv[1:]
if kind == "litert":
    from ai_edge_litert.interpreter import Interpreter
else:
    import tensorflow as tf
    Interpreter = tf.lite.Interpreter
run = Interpreter(model, num_threads=2).get_signature_runner("serving_default")
found = [run(**inputs) for inputs in pickle.load(open(calls, "rb"))]
assert not any(module.startswith("tf_fast_rcnn") for module in sys.modules)
pickle.dump(found, open(results, "wb"))
"""


def run_tflite(path, calls, folder, kind="litert"):
    """The outputs of each call, in a process that does not import this package."""
    (folder / "calls").write_bytes(pickle.dumps(calls))
    command = [sys.executable, "-c", TFLITE_RUNNER, path, kind, folder / "calls", folder / "results"]
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pickle.loads((folder / "results").read_bytes())


def tflite_inputs(image, proposals, count=None):
    count = len(proposals) if count is None else count
    return {"images": image[None], "proposals": proposals[None], "num_proposals": np.int32([count])}


def tflite_detections(outputs):
    count = outputs["num_detections"][0]
    return frcnn.Detections(*(outputs[f"detection_{name}"][0, :count] for name in ("boxes", "scores", "classes")))


# Runs Detector of the example on images and proposals of a JSON file.
NODE_RUNNER = """
import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import { readFileSync } from "node:fs";
import { Detector } from "./src/detector.js";

const [backend, folder, calls] = process.argv.slice(2);
setWasmPaths("node_modules/@tensorflow/tfjs-backend-wasm/dist/");
if (!(await tf.setBackend(backend))) throw new Error(`no back end ${backend}`);
const model = JSON.parse(readFileSync(`${folder}/model.json`));
const [{ paths, weights }] = model.weightsManifest;
const data = Buffer.concat(paths.map((path) => readFileSync(`${folder}/${path}`)));
const weightData = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
const detector = await Detector.load({ load: async () => ({ ...model, weightSpecs: weights, weightData }) });
const found = [];
for (const { pixels, height, width, proposals } of JSON.parse(readFileSync(calls))) {
  found.push({
    detections: await detector.detect(pixels, height, width, Float32Array.from(proposals)),
    proposals: Array.from(detector.proposals(height, width)),
    tensors: tf.memory().numTensors,
  });
}
console.log(JSON.stringify(found));
"""


def run_in_node(example, backend, model, pairs, folder):
    """The output of NODE_RUNNER for pairs of an image and its proposals."""
    calls = [
        {"pixels": image.ravel().tolist(), "height": image.shape[0], "width": image.shape[1]}
        | {"proposals": proposals.ravel().tolist()}
        for image, proposals in pairs
    ]
    (folder / "calls.json").write_text(json.dumps(calls))
    (example / "run.mjs").write_text(NODE_RUNNER)
    command = ["node", "run.mjs", backend, str(model), str(folder / "calls.json")]
    done = subprocess.run(command, cwd=example, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def node_detections(found, class_names):
    """The list from JavaScript as `Detections`."""
    return frcnn.Detections(
        np.float32([each["box"] for each in found]).reshape(-1, 4),
        np.float32([each["score"] for each in found]),
        np.int32([class_names.index(each["className"]) + 1 for each in found]),
    )
