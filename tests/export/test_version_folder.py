"""What stands in a version's folder beside the graph, and when it is there."""

import hashlib
import json
import sys
import threading
from pathlib import Path

import pytest
import tensorflow as tf
from served import run_saved_model
from tensorflow_serving.apis import prediction_log_pb2

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError, export_saved_model
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings
from tf_fast_rcnn.export.versions import version_folder

CLASS_NAMES = ("cat", "dog", "öx")
SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)
GRID = ProposalSettings(dense=DenseBoxes(((0.3, 0.3), (0.6, 0.4)), 0.5), min_size=0.2)
LIMITS = frcnn.ServingLimits(max_side=100, max_pixels=9000, max_images=4, max_proposals=200)
TRAINING = {"run": {"seed": 3, "recipe": {"steps": 12}}, "validation": None, "metrics": {"mean_ap": 0.25}}
PARTS = ["assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"]


class Watcher:
    """Looks all the time at which numbered folders there are, and what they hold when they are first seen."""

    def __init__(self, folder):
        self._folder, self.seen, self._stop = folder, {}, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        last = False
        while not last:
            last = self._stop.is_set()
            for entry in self._folder.iterdir():
                if entry.name.isdecimal() and entry.name not in self.seen:
                    self.seen[entry.name] = sorted(part.name for part in entry.iterdir())


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "cells"
    folder.mkdir()
    with Watcher(folder) as watcher:
        export_saved_model(
            tiny_model,
            folder / "1",
            class_names=CLASS_NAMES,
            settings=SETTINGS,
            proposals=GRID,
            limits=LIMITS,
            warm_up=[(1, 0), (1, 30), (4, 30)],
            training=TRAINING,
        )
    return folder / "1", watcher.seen


def test_a_watcher_never_sees_half_a_version(exported):
    folder, seen = exported
    assert seen == {"1": PARTS}
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_metadata(exported, tiny_model):
    metadata = json.loads((exported[0] / "assets" / "metadata.json").read_text(encoding="utf-8"))
    # The hash of what is stored, by TensorFlow's own reader of checkpoints.
    checkpoint = tf.train.load_checkpoint(str(exported[0] / "variables" / "variables"))
    names = [name for name in checkpoint.get_variable_to_shape_map() if name.startswith("weights/")]
    values = [checkpoint.get_tensor(name) for name in sorted(names, key=lambda name: int(name.split("/")[1]))]
    assert [value.shape for value in values] == [variable.shape for variable in tiny_model.variables]
    assert metadata.pop("weights_sha256") == hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest()
    assert metadata.pop("detection")["nms_iou"] == 0.3
    assert metadata == {
        "package_version": frcnn.__version__,
        "tensorflow_version": tf.__version__,
        "class_names": list(CLASS_NAMES),
        "roi_pooling": "portable",
        "proposals": json.loads(json.dumps(GRID.to_json())),
        "limits": {"max_side": 100, "max_pixels": 9000, "max_images": 4, "max_proposals": 200},
        "training": TRAINING,
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


def test_warm_up_covers_what_was_asked_for(exported):
    requests = warm_up_requests(exported[0])
    with_proposals = [(inputs["image_bytes"].size, *inputs["proposals"].shape) for _, inputs in requests[:6]]
    assert with_proposals == 2 * [(1, 1, 0, 4), (1, 1, 30, 4), (4, 4, 30, 4)]
    assert [name for name, _ in requests] == ["serving_default"] * 3 + ["regions"] * 3 + ["detect_image_bytes"] * 2
    assert [inputs["image_bytes"].size for _, inputs in requests[6:]] == [1, 4]
    sizes = {tf.io.decode_jpeg(contents).shape[:2] for _, inputs in requests for contents in inputs["image_bytes"]}
    ((height, width),) = sizes
    # As near to the network's 96 x 128 as the limits allow.
    assert width == 100
    assert 7000 < height * width <= 9000


def test_a_server_runs_the_warm_up_requests(exported, tmp_path):
    outputs = run_saved_model(exported[0], warm_up_requests(exported[0]), tmp_path)["outputs"]
    assert len(outputs) == 8
    assert not [found for found in outputs if isinstance(found, str)]


@pytest.mark.parametrize("warm_up", [[(5, 10)], [(1, 201)], [(0, 10)]])
def test_requests_that_a_server_would_refuse(tiny_model, tmp_path, warm_up):
    with pytest.raises(
        InputError, match=r"warm_up: found . images with .* proposals each; expected 1 to 4 with at most"
    ):
        export_saved_model(tiny_model, tmp_path / "1", class_names=CLASS_NAMES, limits=LIMITS, warm_up=warm_up)
    assert list(tmp_path.iterdir()) == []


def test_without_the_serving_extra(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(InputError, match=r"found no tensorflow-serving-api; .* pip install 'tf-fast-rcnn\[serving\]'"):
        export_saved_model(tiny_model, tmp_path / "1", class_names=CLASS_NAMES, warm_up=[(1, 10)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("present", "out", "expected"),
    [
        ((), "cells", "cells/1"),
        (("cells/1", "cells/9", "cells/10", "cells/.export-x", "cells/old-77"), "cells", "cells/11"),
        (("cells/00000041",), "cells", "cells/42"),
        ((), "cells/7", "cells/7"),
        (("cells/7",), "cells/007", "cells/007"),
    ],
)
def test_versions(tmp_path, present, out, expected):
    for folder in present:
        (tmp_path / folder).mkdir(parents=True)
    assert version_folder(tmp_path / out) == tmp_path / expected


def test_folders_that_hold_no_versions(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    with pytest.raises(InputError, match="file: found a file; expected a model's folder"):
        version_folder(tmp_path / "file")
    with pytest.raises(InputError, match="model: found a SavedModel; expected a model's folder"):
        version_folder(Path(tmp_path / "model"))
