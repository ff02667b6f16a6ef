"""`export --format tflite` and `--format tfjs`, and the TF Lite files in `detect` and `evaluate`."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn


@pytest.fixture(scope="module")
def run_folder(tiny_run):
    return tiny_run[0]


@pytest.fixture
def file(command, run_folder, tmp_path):
    path = tmp_path / "digits.tflite"
    assert command("export", run_folder, "--format", "tflite", "--out", path).code == 0
    return path


def test_tflite(command, run_folder, tmp_path):
    path = tmp_path / "new" / "digits.tflite"
    arguments = ("--image-size", "96,128", "--num-proposals", 300, "--max-detections", 7, "--precision", "float16")
    done = command("export", run_folder, "--format", "tflite", *arguments, "--out", path, "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["bytes"] == path.stat().st_size
    run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    shapes = {name: detail["shape"].tolist() for name, detail in run.get_input_details().items()}
    assert shapes == {"images": [1, 96, 128, 3], "proposals": [1, 300, 4], "num_proposals": [1]}
    assert run.get_output_details()["detection_boxes"]["shape"].tolist() == [1, 7, 4]


def test_int8_is_calibrated_by_images(command, run_folder, digits, tmp_path):
    path = tmp_path / "digits8.tflite"
    arguments = ("--precision", "int8", "--calibration", f"voc:{digits}@train", "--calibration-images", 2)
    assert command("export", run_folder, "--format", "tflite", *arguments, "--out", path).code == 0
    types = {detail["dtype"] for detail in tf.lite.Interpreter(str(path)).get_tensor_details()}
    assert np.int8 in types


def test_detect_with_a_file(command, run_folder, file, digits, tmp_path):
    images = sorted((digits / "JPEGImages").iterdir())[:2]
    found = {}
    for name, model in (("run", run_folder), ("file", file)):
        done = command("detect", model, *images, "--json", tmp_path / "found.json", "--out", tmp_path / name)
        assert done.code == 0, done.err
        found[name] = json.loads((tmp_path / "found.json").read_text())
        assert len(list((tmp_path / name).glob("*.png"))) == 2
    for mine, theirs in zip(found["file"], found["run"], strict=True):
        scores = [[each["score"] for each in image["detections"]] for image in (mine, theirs)]
        np.testing.assert_allclose(scores[0][:5], scores[1][:5], atol=1e-4)


def test_evaluate_and_detect_a_data_set_with_a_file(command, run_folder, file, digits, tmp_path):
    data = f"voc:{digits}@test"
    done = command("detect", file, "--data", data, "--json", tmp_path / "found.json")
    assert done.code == 0, done.err
    images = json.loads((tmp_path / "found.json").read_text())
    scores = [found["score"] for image in images for found in image["detections"]]
    done = command("evaluate", file, "--data", data, "--coco-results", tmp_path / "results.json", "--json", "-")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "results.json").read_text())
    np.testing.assert_allclose(sorted(row["score"] for row in rows), sorted(scores), atol=1e-6)


def test_tfjs(command, run_folder, tmp_path):
    done = command("export", run_folder, "--format", "tfjs", "--out", tmp_path / "model")
    assert done.code == 0, done.err
    model = json.loads((tmp_path / "model" / "model.json").read_text())
    stored = sum((tmp_path / "model" / path).stat().st_size for path in model["weightsManifest"][0]["paths"])
    sizes = {"float32": 4, "int32": 4, "bool": 1}
    weights = model["weightsManifest"][0]["weights"]
    assert stored == sum(int(np.prod(weight["shape"])) * sizes[weight["dtype"]] for weight in weights)
    assert model["userDefinedMetadata"]["class_names"] == list(frcnn.load_run(run_folder).class_names)


REFUSED = {
    "name": (("--format", "tflite", "--out", "model"), "--out: found model; expected a file name ending in .tflite"),
    "no images": (
        ("--format", "tflite", "--out", "m.tflite", "--precision", "int8"),
        "--precision int8 needs images for calibration; pass --calibration",
    ),
    "images": (
        ("--format", "tflite", "--out", "m.tflite", "--calibration", "voc:x"),
        "--calibration is only used with --precision int8, not float32; remove one",
    ),
    "precision": (
        ("--format", "tfjs", "--out", "m", "--precision", "dynamic"),
        "--precision: found dynamic; expected one of float32, float16 for tfjs",
    ),
    "another format's": (
        ("--format", "tflite", "--out", "m.tflite", "--warm-up", "2"),
        "--warm-up cannot be used with --format tflite; remove it",
    ),
    "fixed size": (
        ("--out", "m", "--image-size", "96,96"),
        "--image-size cannot be used with --format saved-model; remove it",
    ),
    "pyramid": (
        ("--format", "tfjs", "--out", "m", "--shorter-side", "96,128"),
        "shorter_side: found several; expected one",
    ),
    "tiles": (
        ("--format", "tflite", "--out", "m.tflite", "--tile", "96"),
        "tile: found 96; expected none, because only SavedModels see images in tiles",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line(refused, run_folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert refused("export", run_folder, *arguments).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_none(command, run_folder):
    done = command("export", run_folder, "--format", "tflite", "--image-size", "480x640", "--out", "m.tflite")
    assert done.code == 2
    assert "found '480x640'; expected height,width in pixels" in done.err


def test_options_for_settings_fixed_in_the_file_are_refused(refused, file, digits, tmp_path):
    image = next((digits / "JPEGImages").iterdir())
    assert refused("detect", file, image, "--nms-iou-threshold", "0.5").startswith(
        f"--nms-iou-threshold: {file} is not a RUN"
    )
    np.save(tmp_path / "boxes.npy", np.float32([[0.1, 0.1, 0.5, 0.5]]))
    line = refused("detect", file, image, "--classify-regions", tmp_path / "boxes.npy")
    assert line.startswith(f"{file}: found a model that cannot classify regions; expected a RUN, a SavedModel")


def test_a_file_that_is_not_an_export(refused, tmp_path, digits):
    with zipfile.ZipFile(tmp_path / "other.tflite", "w") as archive:
        archive.writestr("metadata.json", "{")
    image = next((digits / "JPEGImages").iterdir())
    assert "other.tflite: found no metadata.json in it" in refused("detect", tmp_path / "other.tflite", image)
