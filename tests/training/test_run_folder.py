"""RUN: which folders are accepted to continue or to use a run, and which are rejected."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, load_run
from tf_fast_rcnn.training import run_folder

DESCRIPTION = {"seed": 0, "class_names": ("cat",), "recipe": {"rate": 0.1}}


def compiled_model():
    """A model whose single layer has the name of an output of real models."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="convolutions")(inputs))
    model.compile("sgd", "mse")
    return model


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    """A copy of a finished run that a test may damage."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("run.json", "model.keras"):
        (folder / name).write_bytes((tiny_run[0] / name).read_bytes())
    return folder


def test_a_new_run_holds_its_description(tmp_path):
    folder = run_folder.open_run(tmp_path / "a" / "b", DESCRIPTION)
    assert folder == tmp_path / "a" / "b"
    assert run_folder.read_description(folder) == {**DESCRIPTION, "class_names": ["cat"]}
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_an_empty_folder_becomes_a_run(tmp_path):
    run_folder.open_run(tmp_path, DESCRIPTION)
    assert run_folder.read_description(tmp_path)["seed"] == 0


def test_an_interrupted_run_is_opened_only_by_the_same_description(tmp_path):
    run_folder.open_run(tmp_path, DESCRIPTION)
    run_folder.save_checkpoint(compiled_model(), tmp_path, 5)
    assert run_folder.open_run(tmp_path, DESCRIPTION) == tmp_path
    assert run_folder.open_run(tmp_path, {**DESCRIPTION, "package_version": "9.9"}) == tmp_path
    with pytest.raises(InputError, match="found a run with another backbone, seed; expected a new folder or the same"):
        run_folder.open_run(tmp_path, {**DESCRIPTION, "seed": 1, "backbone": "vgg16"})
    assert run_folder.read_description(tmp_path)["seed"] == 0


def test_a_run_started_by_0_1_can_be_continued(tmp_path):
    current = {**DESCRIPTION, "recipe": {"optimizer": {"learning_rate": 0.1}, "network": {"head": "reuse"}}}
    run_folder.open_run(tmp_path, current)
    run_folder.save_checkpoint(compiled_model(), tmp_path, 5)
    earlier = {**current, "recipe": {"optimizer": {"rate": 0.1}, "network": {"head": "carry"}}}
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    assert run_folder.read_description(tmp_path)["recipe"] == current["recipe"]
    assert run_folder.open_run(tmp_path, current) == tmp_path
    with pytest.raises(InputError, match="found a run with another recipe"):
        run_folder.open_run(tmp_path, {**current, "recipe": {"optimizer": {"learning_rate": 0.2}}})


def test_a_run_without_a_checkpoint_starts_again(tmp_path):
    run_folder.open_run(tmp_path, DESCRIPTION)
    run_folder.open_run(tmp_path, {**DESCRIPTION, "seed": 1})
    assert run_folder.read_description(tmp_path)["seed"] == 1


def test_a_finished_run_is_not_opened_again(run_copy):
    with pytest.raises(InputError, match="found a finished run; expected a new folder or an interrupted run"):
        run_folder.open_run(run_copy, run_folder.read_description(run_copy))


def test_a_folder_with_other_files_and_a_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match="not empty and not a training run; choose another --out"):
            run_folder.open_run(path, DESCRIPTION)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_checkpoints_keep_the_last_two_and_the_optimisers_step(tmp_path):
    model = compiled_model()
    for step in range(1, 5):
        model.fit(np.ones((1, 2)), np.ones((1, 1)), verbose=0)
        run_folder.save_checkpoint(model, tmp_path, step)
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["step-00000003.keras", "step-00000004.keras"]
    found, step = run_folder.last_checkpoint(tmp_path)
    assert step == int(found.optimizer.iterations.numpy()) == 4
    np.testing.assert_array_equal(found.get_weights()[0], model.get_weights()[0])
    run_folder.remove_checkpoints(tmp_path)
    assert run_folder.last_checkpoint(tmp_path) is None
    assert not (tmp_path / "checkpoints").exists()


def test_half_a_checkpoint_does_not_count(tmp_path, monkeypatch):
    model = compiled_model()
    run_folder.save_checkpoint(model, tmp_path, 1)

    def killed(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_folder.save_checkpoint(model, tmp_path, 2)
    assert run_folder.last_checkpoint(tmp_path) is not None


def test_the_final_model_has_no_optimiser(tiny_run):
    model = run_folder.load_model(tiny_run[0] / "model.keras")
    assert getattr(model, "optimizer", None) is None
    assert set(model.input) == {"images", "rois"}


@pytest.mark.parametrize(("stored", "expected"), [({"nms_iou_threshold": 0.45}, 0.45), ({}, 0.3)], ids=["own", "0.1"])
def test_detection_suppresses_as_the_recipe_says(run_copy, stored, expected):
    path = run_copy / "run.json"
    description = json.loads(path.read_text())
    del description["recipe"]["nms_iou_threshold"]
    description["recipe"] |= stored
    path.write_text(json.dumps(description))
    assert frcnn.detection_settings(frcnn.load_run(run_copy)).nms_iou_threshold == expected
    assert frcnn.Predictor.load(run_copy).settings.nms_iou_threshold == expected


def test_load_run_of_a_folder_that_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"found no run.json; expected a folder that `tf-fast-rcnn train` wrote"):
            load_run(folder)


def test_load_run_of_a_run_that_has_not_ended(run_copy):
    (run_copy / "model.keras").unlink()
    with pytest.raises(InputError, match=r"found a run without model.keras; .*repeat its `train` command"):
        load_run(run_copy)


@pytest.mark.parametrize("text", ['{"seed": ', "[]", "5", ""])
def test_broken_run_json(run_copy, text):
    (run_copy / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run.json: found .* expected what `train` writes; train again") as error:
        load_run(run_copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["recipe", "class_names", "proposals"])
def test_run_json_without_a_key(run_copy, key):
    description = json.loads((run_copy / "run.json").read_text())
    del description[key]
    (run_copy / "run.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=rf"run.json: found no usable '{key}'"):
        load_run(run_copy)


@pytest.mark.parametrize("length", [0, 20, 5000])
def test_broken_model_file(run_copy, length):
    content = (run_copy / "model.keras").read_bytes()
    (run_copy / "model.keras").write_bytes(content[:length])
    with pytest.raises(InputError, match=r"model.keras: found no readable model .* expected a .keras file") as error:
        load_run(run_copy)
    assert "\n" not in str(error.value)


def test_model_file_with_damaged_bytes(run_copy):
    content = bytearray((run_copy / "model.keras").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    (run_copy / "model.keras").write_bytes(content)
    with pytest.raises(InputError, match=r"model.keras: found no readable model"):
        load_run(run_copy)


def test_json_appears_whole(tmp_path):
    (tmp_path / "value.json").write_text('{"old": 1}')
    with pytest.raises(TypeError):
        run_folder.write_json(tmp_path / "value.json", {"new": object()})
    assert json.loads((tmp_path / "value.json").read_text()) == {"old": 1}
    run_folder.write_json(tmp_path / "value.json", {"new": 2})
    assert json.loads((tmp_path / "value.json").read_text()) == {"new": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize(("early_stopping", "expected"), [(None, 3), (2, 2)])
def test_validation_metrics_are_those_of_the_model(tiny_run, tmp_path, early_stopping, expected):
    rows = [{"step": step, "mean_ap": mean_ap} for step, mean_ap in enumerate((0.1, 0.2, 0.4, 0.3))]
    lines = [json.dumps(row) for row in (*rows, {"step": 4, "loss": 0.5})]
    (tmp_path / "log.jsonl").write_text("".join(line + "\n" for line in lines))
    run = dataclasses.replace(
        load_run(tiny_run[0]), folder=tmp_path, description={"recipe": {"early_stopping": early_stopping}}
    )
    assert run_folder.validation_metrics(run) == rows[expected]
    (tmp_path / "log.jsonl").unlink()
    assert run_folder.validation_metrics(run) is None
