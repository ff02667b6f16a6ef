"""`tf-fast-rcnn export`."""

import json

import tensorflow as tf


def test_export_end_to_end(command, refused, tiny_run, tmp_path):
    out = tmp_path / "digits" / "1"
    done = command("export", tiny_run[0], "--out", out, "--max-detections", 7, "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"saved_model": str(out), "class_names": list("0123456789")}
    signatures = tf.saved_model.load(str(out)).signatures
    assert set(signatures) == {"serving_default", "regions", "predict_tensors"}
    assert signatures["serving_default"].structured_outputs["detection_boxes"].shape[1:] == [7, 4]
    assert "expected a new folder" in refused("export", tiny_run[0], "--out", out)


def test_the_summary_for_people(command, tiny_run, tmp_path):
    done = command("export", tiny_run[0], "--out", tmp_path / "1", "--roi-pooling", "native")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{tmp_path}/1: SavedModel with native RoI pooling; signatures serving_default")


def test_a_folder_that_is_no_run(refused, tmp_path):
    assert "found no run.json" in refused("export", tmp_path, "--out", tmp_path / "1")
