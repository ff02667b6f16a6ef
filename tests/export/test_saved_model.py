"""Exported models, run like a server does: in a session, in processes that do not import this package."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from naive_detection import raw_outputs, some_image, some_proposals
from served import assert_same_detections, decoded, detections_in, encoded, run_saved_model

from tf_fast_rcnn import DetectionSettings, InputError, cli, detect, export_saved_model
from tf_fast_rcnn.ops import native

CLASS_NAMES = ("cat", "dog", "ox")
SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)

# Three images of different kinds and sizes; 40, 25 and 0 proposals, filled up with copies of the first or with NaN.
IMAGES = [
    encoded(some_image(90, 120, 0), "JPEG"),
    encoded(some_image(130, 80, 1), "PNG"),
    encoded(some_image(60, 60, 2), "JPEG"),
]
PROPOSALS = np.stack([some_proposals(40, 0), some_proposals(40, 1), some_proposals(40, 2)])
PROPOSALS[1, 25:] = PROPOSALS[1, 0]
PROPOSALS[2] = np.nan
COUNTS = np.int32([40, 25, 0])
BATCH = {"image_bytes": np.array(IMAGES, object), "proposals": PROPOSALS, "num_proposals": COUNTS}


def part(index, rows=slice(None)):
    """One image of the batch by itself."""
    return {name: values[index : index + 1, ...] for name, values in BATCH.items()} | {
        "proposals": PROPOSALS[index : index + 1, rows]
    }


@pytest.fixture(scope="module")
def saved_model(tiny_model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "model" / "1"
    export_saved_model(tiny_model, directory, class_names=CLASS_NAMES, settings=SETTINGS)
    return directory


TENSORS = {
    "images": np.random.default_rng(0).uniform(0, 255, (2, 40, 56, 3)).astype(np.float32),
    "rois": some_proposals(14).reshape(2, 7, 4) * np.float32([40, 56, 40, 56]),
}

CALLS = {
    "batch": ("serving_default", BATCH),
    "alone 0": ("serving_default", part(0)),
    "alone 1": ("serving_default", part(1, slice(25))),
    "alone 2": ("serving_default", part(2, slice(0))),
    "regions": ("regions", BATCH),
    "99 of 40": ("serving_default", {**part(0), "num_proposals": np.int32([99])}),
    "-1 of 40": ("serving_default", {**part(0), "num_proposals": np.int32([-1])}),
    "no regions": ("regions", part(2, slice(0))),
    "tensors": ("predict_tensors", TENSORS),
    "no rois": ("predict_tensors", {**TENSORS, "rois": TENSORS["rois"][:, :0]}),
    "no image": ("serving_default", {**part(0), "image_bytes": np.array([b"not an image"], object)}),
    "truncated": ("serving_default", {**part(0), "image_bytes": np.array([IMAGES[0][:300]], object)}),
    "NaN": ("serving_default", {**part(2), "num_proposals": np.int32([1])}),
}


@pytest.fixture(scope="module")
def served(saved_model, tmp_path_factory):
    return run_saved_model(saved_model, list(CALLS.values()), tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def outputs(served):
    return dict(zip(CALLS, served["outputs"], strict=True))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_served_detections_are_those_of_detect(outputs, tiny_model, index):
    expected = detect(tiny_model, decoded(IMAGES[index]), PROPOSALS[index, : COUNTS[index]], SETTINGS)
    assert len(expected.scores) == (0 if index == 2 else 20)
    assert_same_detections(detections_in(outputs["batch"], index), expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_detections_do_not_depend_on_the_batch(outputs, index):
    alone = detections_in(outputs[f"alone {index}"], 0)
    assert_same_detections(detections_in(outputs["batch"], index), alone, tolerance=1e-6)


def test_counts_beyond_the_proposals_mean_all_or_none(outputs):
    assert_same_detections(detections_in(outputs["99 of 40"], 0), detections_in(outputs["alone 0"], 0), tolerance=1e-6)
    assert outputs["-1 of 40"]["num_detections"].tolist() == [0]


def test_rows_that_fill_up_hold_zeros(outputs):
    found = outputs["batch"]
    assert {name: values.dtype for name, values in found.items()} == {
        "detection_boxes": np.float32,
        "detection_scores": np.float32,
        "detection_classes": np.int32,
        "num_detections": np.int32,
    }
    assert found["detection_boxes"].shape == (3, 20, 4)
    assert found["num_detections"][2] == 0
    assert not any(found[f"detection_{name}"][2].any() for name in ("boxes", "scores", "classes"))


def test_regions_are_the_models(outputs, tiny_model):
    found = outputs["regions"]
    assert found["class_probabilities"].shape == (3, 40, 4)
    assert found["boxes"].shape == (3, 40, 3, 4)
    for index, count in enumerate(COUNTS[:2]):
        probabilities, boxes = raw_outputs(tiny_model, decoded(IMAGES[index]), PROPOSALS[index, :count], SETTINGS)
        np.testing.assert_allclose(found["class_probabilities"][index, :count], probabilities, atol=1e-4)
        np.testing.assert_allclose(found["boxes"][index, :count], boxes, atol=1e-4)
    for index, count in enumerate(COUNTS):
        assert not found["class_probabilities"][index, count:].any()
        assert not found["boxes"][index, count:].any()
    assert outputs["no regions"]["boxes"].shape == (1, 0, 3, 4)


def test_predict_tensors_is_the_model(outputs, tiny_model):
    expected = tiny_model(TENSORS, training=False)
    logits, deltas = expected["class_logits"].numpy(), expected["box_deltas"].numpy()
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found = outputs["tensors"]
    np.testing.assert_allclose(
        found["class_probabilities"], exponentials / exponentials.sum(axis=-1, keepdims=True), atol=1e-4
    )
    ymin, xmin, ymax, xmax = np.moveaxis(TENSORS["rois"][:, :, None], -1, 0)
    h, w = ymax - ymin, xmax - xmin
    y, x = (ymin + ymax) / 2 + deltas[..., 0] * h, (xmin + xmax) / 2 + deltas[..., 1] * w
    half_h, half_w = (size * np.exp(deltas[..., 2 + axis]) / 2 for axis, size in enumerate((h, w)))
    expected_boxes = np.stack([y - half_h, x - half_w, y + half_h, x + half_w], axis=-1)
    np.testing.assert_allclose(found["boxes"], expected_boxes, rtol=1e-4, atol=1e-2)
    assert outputs["no rois"]["class_probabilities"].shape == (2, 0, 4)


@pytest.mark.parametrize("call", ["no image", "truncated", "NaN"])
def test_bad_input_is_an_invalid_argument(outputs, call):
    assert isinstance(outputs[call], str), outputs[call]
    assert outputs[call].startswith("InvalidArgument")


def test_the_portable_graph_has_stock_ops_alone(served):
    assert {"DecodeJpeg", "CombinedNonMaxSuppression"} <= served["ops"]
    assert served["unknown"] == []
    assert not any("Fast" in op or op in ("PyFunc", "EagerPyFunc") for op in served["ops"])


def test_class_names_are_an_asset(served, saved_model):
    assert sorted(served["assets"]) == ["class_names.txt", "metadata.json"]
    assert (saved_model / "assets" / "class_names.txt").read_text() == "cat\ndog\nox\n"


def test_the_weights_are_stored_once(saved_model, tiny_model):
    stored = sum(path.stat().st_size for path in saved_model.glob("variables/variables.data*"))
    weights = 4 * sum(int(np.prod(variable.shape)) for variable in tiny_model.variables)
    assert weights <= stored < 1.1 * weights + 4096


def test_nothing_else_is_left_in_the_folder(saved_model):
    assert [path.name for path in saved_model.parent.iterdir()] == ["1"]
    assert {path.name for path in saved_model.iterdir()} >= {"saved_model.pb", "variables", "assets"}


def test_an_existing_directory_is_refused(saved_model, tiny_model):
    before = sorted(path.stat().st_mtime_ns for path in saved_model.rglob("*"))
    with pytest.raises(InputError, match="expected a new folder"):
        export_saved_model(tiny_model, saved_model, class_names=CLASS_NAMES)
    assert sorted(path.stat().st_mtime_ns for path in saved_model.rglob("*")) == before


def test_a_failure_leaves_nothing_behind(tiny_model, tmp_path, monkeypatch):
    def save_half(module, directory, **_):
        Path(directory).mkdir(exist_ok=True)
        (Path(directory) / "saved_model.pb").write_text("half")
        raise RuntimeError("killed")

    monkeypatch.setattr(tf.saved_model, "save", save_half)
    with pytest.raises(RuntimeError, match="killed"):
        export_saved_model(tiny_model, tmp_path / "models" / "1", class_names=CLASS_NAMES)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("names", [(), ("cat", "dog"), ("cat", "dog", "ox", "owl")])
def test_class_names_that_do_not_fit(tiny_model, tmp_path, names):
    with pytest.raises(InputError, match=f"class_names: found {len(names)}; expected the model's 3"):
        export_saved_model(tiny_model, tmp_path / "model", class_names=names)
    assert not (tmp_path / "model").exists()


def test_native_variant_runs_where_the_op_is_loaded(tiny_model, tmp_path, outputs):
    directory = tmp_path / "native"
    export_saved_model(tiny_model, directory, class_names=CLASS_NAMES, settings=SETTINGS, roi_pooling="native")
    library = native.find_library(Path(native.__file__).parents[1], tf.__version__)
    result = run_saved_model(directory, [CALLS["batch"]], tmp_path, library)
    assert "TfFastRcnn>RoiPool" in result["ops"]
    for index in range(3):
        assert_same_detections(detections_in(result["outputs"][0], index), detections_in(outputs["batch"], index))


def test_saved_model_cli_gives_what_the_detect_command_gives(tiny_run, digits, prepared_digits, tmp_path, capsys):
    """Both workflows of a user, with a trained model and a JPEG file."""
    folder, _ = tiny_run
    record = prepared_digits[1][0]
    np.save(tmp_path / "image_bytes.npy", np.array([Path(record.image_path).read_bytes()]))
    np.save(tmp_path / "proposals.npy", record.proposals())
    np.save(tmp_path / "batch.npy", record.proposals()[None])
    np.save(tmp_path / "num_proposals.npy", np.int32([len(record.proposals())]))
    assert cli.main(["export", str(folder), "--out", str(tmp_path / "1"), "--score-threshold", "0.01"]) == 0
    capsys.readouterr()
    detect_arguments = ["--proposals", str(tmp_path / "proposals.npy"), "--score-threshold", "0.01", "--json", "-"]
    assert cli.main(["detect", str(folder), record.image_path, *detect_arguments]) == 0
    expected = json.loads(capsys.readouterr().out)[0]["detections"]
    assert expected

    inputs = "image_bytes=image_bytes.npy;proposals=batch.npy;num_proposals=num_proposals.npy"
    command = f"run --dir 1 --tag_set serve --signature_def serving_default --inputs {inputs} --outdir out"
    tool = Path(sys.executable).with_name("saved_model_cli")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([tool, *command.split()], cwd=tmp_path, env=environment, capture_output=True, check=True)
    found = {path.stem: np.load(path) for path in (tmp_path / "out").iterdir()}
    count = found["num_detections"][0]
    assert count == len(expected)
    np.testing.assert_allclose(found["detection_scores"][0, :count], [row["score"] for row in expected], atol=1e-4)
    np.testing.assert_allclose(found["detection_boxes"][0, :count], [row["box"] for row in expected], atol=1e-4)
    names = (tmp_path / "1" / "assets" / "class_names.txt").read_text().split()
    assert [names[label - 1] for label in found["detection_classes"][0, :count]] == [row["class"] for row in expected]


def test_settings_are_fixed_in_the_graph(tiny_model, tmp_path):
    settings = dataclasses.replace(SETTINGS, max_detections=3, score_threshold=0.5)
    export_saved_model(tiny_model, tmp_path / "model", class_names=CLASS_NAMES, settings=settings)
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    found = {name: values.numpy() for name, values in serve(**{k: tf.constant(v) for k, v in part(0).items()}).items()}
    expected = detect(tiny_model, decoded(IMAGES[0]), PROPOSALS[0], settings)
    assert found["detection_boxes"].shape == (1, 3, 4)
    assert_same_detections(detections_in(found, 0), expected)


def test_every_setting_is_fixed_in_the_graph(tiny_model, tmp_path):
    """Image pyramid, box refinement and class filter in a session, in batches and with RoIs of equal cells."""
    settings = DetectionSettings(
        (96, 400), 500, box_refinement_steps=2, class_ids=(1, 3), max_detections=15, score_threshold=0.1
    )
    export_saved_model(tiny_model, tmp_path / "model", class_names=CLASS_NAMES, settings=settings)
    result = run_saved_model(tmp_path / "model", [CALLS["batch"]], tmp_path)
    assert result["unknown"] == []
    for index in range(3):
        expected = detect(tiny_model, decoded(IMAGES[index]), PROPOSALS[index, : COUNTS[index]], settings)
        assert set(expected.class_ids) <= {1, 3}
        assert_same_detections(detections_in(result["outputs"][0], index), expected)


def bytes_of_weights(folder):
    checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    types, shapes = checkpoint.get_variable_to_dtype_map(), checkpoint.get_variable_to_shape_map()
    names = [name for name in shapes if name.startswith("weights/")]
    return sum(int(np.prod(shapes[name])) * types[name].size for name in names)


def test_bfloat16_halves_what_is_stored(tiny_model, saved_model, tmp_path):
    settings = dataclasses.replace(SETTINGS, dtype="bfloat16")
    export_saved_model(tiny_model, tmp_path / "model", class_names=CLASS_NAMES, settings=settings)
    whole, half = map(bytes_of_weights, (saved_model, tmp_path / "model"))
    # The predictor layers and the preprocessing stay in float32.
    assert half < 0.65 * whole
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    found = {name: values.numpy() for name, values in serve(**{k: tf.constant(v) for k, v in part(0).items()}).items()}
    expected = detect(tiny_model, decoded(IMAGES[0]), PROPOSALS[0], settings)
    assert_same_detections(detections_in(found, 0), expected)


def test_sigmoid_scores_in_every_signature(tiny_model, tmp_path):
    settings = dataclasses.replace(SETTINGS, scores="sigmoid")
    export_saved_model(tiny_model, tmp_path / "model", class_names=CLASS_NAMES, settings=settings)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    found = loaded.signatures["predict_tensors"](**{name: tf.constant(value) for name, value in TENSORS.items()})
    logits = tiny_model(TENSORS, training=False)["class_logits"].numpy()
    np.testing.assert_allclose(found["class_probabilities"], 1 / (1 + np.exp(-logits)), atol=1e-5)
