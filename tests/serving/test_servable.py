"""Loading of SavedModels in the server: warm-up, native ops, and broken files."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from naive_detection import some_image
from servers import CLASS_NAMES, SETTINGS, batch_of, encoded, served
from tensorflow_serving.apis import prediction_log_pb2

from tf_fast_rcnn import InputError, detect, export_saved_model
from tf_fast_rcnn.serving.servable import Servable

# Loads a model and runs one request of a file, in a process that has not loaded the ops yet.
RUNNER = """
import json, sys
import numpy as np
from tf_fast_rcnn.serving.servable import Servable
folder, request = sys.argv[1:]
inputs = dict(np.load(request))
outputs = Servable(folder).run("", inputs | {"image_bytes": np.array([inputs["image_bytes"].tobytes()], object)})
ours = sorted(name for name in sys.modules if name.startswith("tf_fast_rcnn."))
print(json.dumps({"ours": ours, **{name: values.tolist() for name, values in outputs.items()}}))
"""


def test_native_ops_are_loaded_and_nothing_of_networks_is_imported(tiny_model, tmp_path):
    export_saved_model(tiny_model, tmp_path / "1", class_names=CLASS_NAMES, settings=SETTINGS, roi_pooling="native")
    image = some_image(90, 120, 0)
    inputs = batch_of([encoded(image, "PNG")], 40)
    contents = np.frombuffer(inputs["image_bytes"][0], np.uint8)
    np.savez(tmp_path / "request.npz", **inputs | {"image_bytes": contents})
    command = [sys.executable, "-c", RUNNER, str(tmp_path / "1"), str(tmp_path / "request.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    expected = detect(tiny_model, image, inputs["proposals"][0], SETTINGS)
    np.testing.assert_allclose(found["detection_scores"][0][: len(expected.scores)], expected.scores, atol=1e-4)
    assert not set(found["ours"]) & {f"tf_fast_rcnn.{name}" for name in ("model", "detector", "backbones", "training")}


def write_warm_up(folder, value):
    """One warm-up request of half_plus_two."""
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "example"
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(value))
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def test_a_version_whose_warm_up_fails_is_not_available(example_versions, tmp_path):
    for number, value in ((1, [1.0]), (2, ["a string"])):
        shutil.copytree(example_versions / "1", tmp_path / str(number))
        write_warm_up(tmp_path / str(number), value)
    assert Servable(tmp_path / "1").run("", {"x": np.float32([1])})["y"].tolist() == [2.5]
    with pytest.raises(InputError, match="input x: found string"):
        Servable(tmp_path / "2")


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "saved_model.pb"),
        lambda folder: cut(folder / "variables" / "variables.index"),
        lambda folder: shutil.rmtree(folder / "variables"),
        lambda folder: (folder / "saved_model.pb").write_bytes(b""),
    ],
)
def test_broken_files_are_one_line(example_versions, tmp_path, damage):
    shutil.copytree(example_versions / "1", tmp_path / "1")
    damage(tmp_path / "1")
    with pytest.raises(InputError) as caught:
        Servable(tmp_path / "1")
    assert str(tmp_path / "1") in str(caught.value)


def test_over_ipv6(example_versions):
    with served("example", example_versions / "3", host="::1") as server:
        assert server.ports["grpc"] != server.ports["rest"]
