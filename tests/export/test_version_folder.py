"""Content of a version folder apart from the graph, and when the folder appears."""

import hashlib
import json
import sys

import pytest
import tensorflow as tf
from served import run_saved_model
from tensorflow_serving.apis import prediction_log_pb2

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, export_saved_model

PARTS = ["assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"]


def test_a_watcher_never_sees_half_a_version(grid_export):
    assert grid_export.seen == {"1": PARTS}
    assert [path.name for path in grid_export.folder.parent.iterdir()] == ["1"]


def test_metadata(grid_export, tiny_model):
    metadata = json.loads((grid_export.folder / "assets" / "metadata.json").read_text(encoding="utf-8"))
    # The hash of the stored weights, read with TensorFlow's checkpoint reader.
    checkpoint = tf.train.load_checkpoint(str(grid_export.folder / "variables" / "variables"))
    names = [name for name in checkpoint.get_variable_to_shape_map() if name.startswith("weights/")]
    values = [checkpoint.get_tensor(name) for name in sorted(names, key=lambda name: int(name.split("/")[1]))]
    assert [value.shape for value in values] == [variable.shape for variable in tiny_model.variables]
    assert metadata.pop("weights_sha256") == hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest()
    assert metadata.pop("detection")["nms_iou"] == 0.3
    assert metadata == {
        "package_version": frcnn.__version__,
        "tensorflow_version": tf.__version__,
        "class_names": ["cat", "dog", "öx"],
        "roi_pooling": "portable",
        "proposals": json.loads(json.dumps(grid_export.options["proposals"].to_json())),
        "limits": {"max_side": 400, "max_pixels": 12_000, "max_images": 3, "max_proposals": 1000},
        "training": grid_export.options["training"],
    }


def warm_up_requests(folder):
    """`(signature, inputs)` of each request, in the order of the file."""
    records = tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records.as_numpy_iterator()]
    requests = [log.predict_log.request for log in logs]
    return [
        (request.model_spec.signature_name, {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        for request in requests
    ]


def test_warm_up_covers_what_was_asked_for(grid_export):
    requests = warm_up_requests(grid_export.folder)
    with_proposals = [(inputs["image_bytes"].size, *inputs["proposals"].shape) for _, inputs in requests[:6]]
    assert with_proposals == 2 * [(1, 1, 0, 4), (1, 1, 30, 4), (3, 3, 30, 4)]
    assert [name for name, _ in requests] == ["serving_default"] * 3 + ["regions"] * 3 + ["detect_image_bytes"] * 2
    assert [inputs["image_bytes"].size for _, inputs in requests[6:]] == [1, 3]
    sizes = {tf.io.decode_jpeg(contents).shape[:2] for _, inputs in requests for contents in inputs["image_bytes"]}
    ((height, width),) = sizes
    # As close to the network's 96 x 128 as the limits allow.
    assert 11_000 < height * width <= 12_000
    assert width / height == pytest.approx(4 / 3, abs=0.02)


def test_a_server_runs_the_warm_up_requests(grid_export, tmp_path):
    outputs = run_saved_model(grid_export.folder, warm_up_requests(grid_export.folder), tmp_path)["outputs"]
    assert len(outputs) == 8
    assert not [found for found in outputs if isinstance(found, str)]


@pytest.mark.parametrize("warm_up", [[(4, 10)], [(1, 1001)], [(0, 10)]])
def test_requests_that_a_server_would_refuse(tiny_model, tmp_path, warm_up):
    limits = frcnn.ServingLimits(max_images=3, max_proposals=1000)
    with pytest.raises(
        InputError, match=r"warm_up: found . images with .* proposals each; expected 1 to 3 with at most"
    ):
        export_saved_model(tiny_model, tmp_path / "1", class_names=("cat", "dog", "ox"), limits=limits, warm_up=warm_up)
    assert list(tmp_path.iterdir()) == []


def test_without_the_serving_extra(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(
        InputError, match=r"found no package tensorflow-serving-api, .* pip install 'tf-fast-rcnn\[serving\]'"
    ):
        export_saved_model(tiny_model, tmp_path / "1", class_names=("cat", "dog", "ox"), warm_up=[(1, 10)])
    assert list(tmp_path.iterdir()) == []
