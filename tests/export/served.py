"""Exported models, run as a server runs them: by a session, in processes that know nothing of this package."""

import io
import pickle
import subprocess
import sys

import numpy as np
from PIL import Image

import tf_fast_rcnn as frcnn

# Loads a SavedModel as TensorFlow Serving does and runs calls from a file: [signature, {input: array}] each.
RUNNER = """
import pickle, sys
import tensorflow as tf
saved_model, calls, results, library = sys.argv[1:]
if library:
    tf.load_op_library(library)
session = tf.compat.v1.Session(graph=tf.Graph())
with session.graph.as_default():
    meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], saved_model)
    outputs = []
    for name, inputs in pickle.load(open(calls, "rb")):
        signature = meta.signature_def[name]
        feed = {signature.inputs[key].name: value for key, value in inputs.items()}
        fetches = {key: info.name for key, info in signature.outputs.items()}
        try:
            outputs.append(session.run(fetches, feed))
        except tf.errors.InvalidArgumentError as error:
            outputs.append("InvalidArgument: " + error.message)
    graph = session.graph.as_graph_def()
    assets = [asset.filename for asset in meta.asset_file_def]
    used = {node.op for node in graph.node}
    used |= {node.op for function in graph.library.function for node in function.node_def}
    # Functions of the graph are called by their names, as if they were ops.
    used -= {function.signature.name for function in graph.library.function}
from tensorflow.python.framework import op_def_registry
unknown = sorted(op for op in used if op_def_registry.get(op) is None)
assert not any(module.startswith("tf_fast_rcnn") for module in sys.modules)
pickle.dump({"outputs": outputs, "ops": used, "unknown": unknown, "assets": assets}, open(results, "wb"))
"""


def run_saved_model(saved_model, calls, folder, library=""):
    """What RUNNER finds, in a process that does not import this package."""
    (folder / "calls").write_bytes(pickle.dumps(calls))
    command = [sys.executable, "-c", RUNNER, saved_model, folder / "calls", folder / "results", library]
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pickle.loads((folder / "results").read_bytes())


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image_bytes):
    return np.asarray(Image.open(io.BytesIO(image_bytes)).convert("RGB"))


def detections_in(found, index):
    count = found["num_detections"][index]
    return frcnn.Detections(*(found[f"detection_{name}"][index, :count] for name in ("boxes", "scores", "classes")))


def assert_same_detections(found, expected, tolerance=1e-4):
    assert len(found.scores) == len(expected.scores)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=tolerance)
