"""Exports shared by several tests: with dense boxes, for any server; with selective search, for one with our ops."""

import shutil
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import keras
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, export_saved_model
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings
from tf_fast_rcnn.ops import native


class Export(NamedTuple):
    """An exported model and the arguments of its export; `seen`: see `Watcher`."""

    folder: Path
    options: dict
    seen: dict
    library: Path


OPTIONS = {
    "class_names": ("cat", "dog", "öx"),
    "settings": DetectionSettings(shorter_side=96, longer_side=144, max_detections=20),
}
GRID = ProposalSettings(dense=DenseBoxes(((0.3, 0.3), (0.6, 0.4)), 0.5), min_size=0.2)
LIMITS = frcnn.ServingLimits(max_side=400, max_pixels=12_000, max_images=3, max_proposals=1000)
EXAMPLE = Path(frcnn.__file__).parent.parent / "examples" / "browser"
LIBRARY = native.find_library(Path(native.__file__).parents[1], tf.__version__)


class Watcher:
    """Polls for numbered folders and records their content when they are first seen."""

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


@pytest.fixture(scope="session")
def grid_export(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "cells"
    folder.mkdir()
    options = {
        **OPTIONS,
        "proposals": GRID,
        "limits": LIMITS,
        "class_names_output": True,
        "warm_up": [(1, 0), (1, 30), (3, 30)],
        "training": {"run": {"seed": 3, "recipe": {"steps": 12}}, "validation": None, "metrics": {"mean_ap": 0.25}},
    }
    with Watcher(folder) as watcher:
        names = export_saved_model(tiny_model, folder / "1", **options)
    assert names == ["serving_default", "regions", "predict_tensors", "detect_image_bytes"]
    return Export(folder / "1", options, watcher.seen, "")


@pytest.fixture(scope="session")
def search_export(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "1"
    options = {**OPTIONS, "proposals": ProposalSettings("fast", 200, GRID.dense, min_size=0.1)}
    export_saved_model(tiny_model, folder, **options)
    return Export(folder, options, {}, LIBRARY)


@keras.saving.register_keras_serializable("tests")
class Igamma(keras.layers.Layer):
    """An op that neither TF Lite nor TensorFlow.js supports."""

    def call(self, values):
        return tf.math.igamma(values + 1.0, values)


@pytest.fixture(scope="session")
def detector_with_igamma():
    network = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Conv2D(4, 5, 8, "same", activation="relu", name="conv"),
            Igamma(name="igamma"),
            keras.layers.GlobalAveragePooling2D(name="pooling"),
            keras.layers.Dense(5, name="predictions"),
        ]
    )
    return frcnn.fast_rcnn(network, num_classes=3, fc_units=(8,), stride=8)


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """A copy of examples/browser with its dependencies, built."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on the PATH: TensorFlow.js was not run; install Node.js 20 or later")
    folder = tmp_path_factory.mktemp("example") / "browser"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "model"))
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"npm ci could not install TensorFlow.js, which was not run: {done.stderr.strip()[-200:]}")
    subprocess.run(["npm", "run", "build"], cwd=folder, capture_output=True, check=True)
    return folder
