"""Exported models in a C program of TensorFlow's C API, which knows nothing of Python, Keras or this package."""

import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from naive_detection import some_image, some_proposals
from served import assert_same_detections, decoded, encoded
from tensorflow.core.protobuf import saved_model_pb2

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, export_saved_model, native
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings

SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)
GRID = ProposalSettings(dense=DenseBoxes(((0.3, 0.3), (0.6, 0.4)), 0.5), min_size=0.2)
SEARCH = ProposalSettings("fast", 200, min_size=0.1)
IMAGE = encoded(some_image(90, 120, 0), "JPEG")
PROPOSALS = some_proposals(40, 0)
SOURCE = Path(__file__).with_name("run_saved_model.c")
LIBRARY = native.find_library(Path(native.__file__).parent, tf.__version__)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder, out = Path(tf.__file__).parent, tmp_path_factory.mktemp("c") / "run_saved_model"
    libraries = [str(folder / name) for name in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, "-Wall", "-Werror", "-I", str(folder / "include"), str(SOURCE), *libraries]
    subprocess.run([*command, f"-Wl,-rpath,{folder}", "-o", str(out)], check=True)
    return out


def tensors(folder, signature):
    """Names of a signature's tensors, inputs and outputs."""
    saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    definition = saved_model.meta_graphs[0].signature_def[signature]
    inputs = [name for name in ("image_bytes", "proposals", "num_proposals") if name in definition.inputs]
    outputs = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    return (
        ",".join(definition.inputs[name].name for name in inputs),
        ",".join(definition.outputs[name].name for name in outputs),
    )


def run(program, folder, signature, image=IMAGE, proposals=None, library=""):
    """What the program prints about one image, and its exit code."""
    (folder.parent / "image").write_bytes(image)
    boxes = ["", "0"]
    if proposals is not None:
        proposals.tofile(folder.parent / "proposals")
        boxes = [str(folder.parent / "proposals"), str(len(proposals))]
    command = [program, folder, library, folder.parent / "image", *boxes, *tensors(folder, signature)]
    done = subprocess.run(
        list(map(str, command)), env={"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, check=False
    )
    return done.stdout, done.returncode


def detections(printed):
    rows = np.array([line.split() for line in printed.splitlines()], np.float64).reshape(-1, 6)
    return frcnn.Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(int))


@pytest.fixture(scope="module")
def stock(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock") / "1"
    export_saved_model(tiny_model, folder, class_names=("cat", "dog", "ox"), settings=SETTINGS, proposals=GRID)
    return folder


@pytest.mark.parametrize(("signature", "given"), [("serving_default", PROPOSALS), ("detect_image_bytes", None)])
def test_a_stock_server_detects_what_detect_does(program, stock, tiny_model, signature, given):
    printed, code = run(program, stock, signature, proposals=given)
    assert code == 0, printed
    expected = frcnn.detect(tiny_model, decoded(IMAGE), GRID if given is None else given, SETTINGS)
    assert len(expected.scores) > 5
    assert_same_detections(detections(printed), expected)


def test_errors_arrive_as_invalid_argument(program, stock):
    printed, code = run(program, stock, "detect_image_bytes", image=b"GIF89a")
    assert code == 3
    assert printed.startswith(f"TF_SessionRun: code {tf.errors.INVALID_ARGUMENT}: ")
    assert "expected JPEG, PNG or WebP" in printed


def test_native_exports_need_the_library_and_nothing_else(program, tiny_model, tmp_path):
    names = ("cat", "dog", "ox")
    export_saved_model(tiny_model, tmp_path / "1", class_names=names, settings=SETTINGS, proposals=SEARCH)
    printed, code = run(program, tmp_path / "1", "detect_image_bytes")
    assert code == 3
    assert "TfFastRcnn>" in printed
    printed, code = run(program, tmp_path / "1", "detect_image_bytes", library=LIBRARY)
    assert code == 0, printed
    assert_same_detections(detections(printed), frcnn.detect(tiny_model, decoded(IMAGE), SEARCH, SETTINGS))
