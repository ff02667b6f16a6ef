"""Exported models in a C program that uses TensorFlow's C API, without Python, Keras or this package."""

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

IMAGE = encoded(some_image(90, 120, 0), "JPEG")
PROPOSALS = some_proposals(40, 0)
SOURCE = Path(__file__).with_name("run_saved_model.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder, out = Path(tf.__file__).parent, tmp_path_factory.mktemp("c") / "run_saved_model"
    libraries = [str(folder / name) for name in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, "-Wall", "-Werror", "-I", str(folder / "include"), str(SOURCE), *libraries]
    subprocess.run([*command, f"-Wl,-rpath,{folder}", "-o", str(out)], check=True)
    return out


def tensors(folder, signature):
    """Names of the input and output tensors of a signature."""
    saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    definition = saved_model.meta_graphs[0].signature_def[signature]
    inputs = [name for name in ("image_bytes", "proposals", "num_proposals") if name in definition.inputs]
    outputs = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
    return (
        ",".join(definition.inputs[name].name for name in inputs),
        ",".join(definition.outputs[name].name for name in outputs),
    )


def run(program, folder, signature, tmp_path, image=IMAGE, proposals=None, library=""):
    """The program's output for one image, and its exit code."""
    (tmp_path / "image").write_bytes(image)
    boxes = ["", "0"]
    if proposals is not None:
        proposals.tofile(tmp_path / "proposals")
        boxes = [str(tmp_path / "proposals"), str(len(proposals))]
    command = [program, folder, library, tmp_path / "image", *boxes, *tensors(folder, signature)]
    done = subprocess.run(
        list(map(str, command)), env={"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, check=False
    )
    return done.stdout, done.returncode


def detections(printed):
    rows = np.array([line.split() for line in printed.splitlines()], np.float64).reshape(-1, 6)
    return frcnn.Detections(rows[:, 2:], rows[:, 1], rows[:, 0].astype(int))


def expected_of(export, model, proposals=None):
    settings = export.options["settings"]
    return frcnn.detect(
        model, decoded(IMAGE), export.options["proposals"] if proposals is None else proposals, settings
    )


@pytest.mark.parametrize(("signature", "given"), [("serving_default", PROPOSALS), ("detect_image_bytes", None)])
def test_a_stock_server_detects_what_detect_does(program, grid_export, tiny_model, tmp_path, signature, given):
    printed, code = run(program, grid_export.folder, signature, tmp_path, proposals=given)
    assert code == 0, printed
    expected = expected_of(grid_export, tiny_model, given)
    assert len(expected.scores) > 5
    assert_same_detections(detections(printed), expected)


def test_errors_arrive_as_invalid_argument(program, grid_export, tmp_path):
    printed, code = run(program, grid_export.folder, "detect_image_bytes", tmp_path, image=b"GIF89a")
    assert code == 3
    assert printed.startswith(f"TF_SessionRun: code {tf.errors.INVALID_ARGUMENT}: ")
    assert "expected JPEG, PNG or WebP" in printed


def test_native_exports_need_the_library_and_nothing_else(program, search_export, tiny_model, tmp_path):
    printed, code = run(program, search_export.folder, "detect_image_bytes", tmp_path)
    assert code == 3
    assert "TfFastRcnn>" in printed
    printed, code = run(program, search_export.folder, "detect_image_bytes", tmp_path, library=search_export.library)
    assert code == 0, printed
    assert_same_detections(detections(printed), expected_of(search_export, tiny_model))
