"""Training runs: their files, learning, resuming after a kill, starting from other runs, and errors on bad input."""

import dataclasses
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, load_run
from tf_fast_rcnn.evaluation import models
from tf_fast_rcnn.training import run as training_run
from tf_fast_rcnn.training import run_folder
from tf_fast_rcnn.training.run import _segments
from tf_fast_rcnn.training.settings import OptimizerSettings, with_changes

FILES = {"run.json", "model.keras", "log.jsonl", "losses.png", "tensorboard"}


class Steps(keras.callbacks.Callback):
    """Records the completed steps."""

    def __init__(self):
        super().__init__()
        self.done = []

    def on_train_batch_end(self, batch, logs=None):
        self.done.append(int(self.model.optimizer.iterations.numpy()))


@pytest.fixture
def no_steps(monkeypatch):
    """Runs finish without training."""
    monkeypatch.setattr(training_run, "_fit", lambda *arguments: None)


@pytest.fixture
def train(prepared_digits, tiny_backbone, tmp_path):
    """`frcnn.train` of the tiny network on all training images, into `tmp_path / "run"` by default."""

    def run(recipe, dataset=prepared_digits[0], folder=tmp_path / "run", **options):
        return frcnn.train(dataset, folder, recipe=recipe, progress=False, **{"backbone": tiny_backbone, **options})

    return run


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights_of(model, layer):
    return model.get_layer(layer).get_weights()


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_files_of_a_run(tiny_run):
    folder, _ = tiny_run
    assert {path.name for path in folder.iterdir()} == FILES
    with Image.open(folder / "losses.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 0


def test_run_json_holds_everything_that_the_run_depends_on(tiny_run, tiny_recipe, prepared_digits):
    folder, _ = tiny_run
    description = json.loads((folder / "run.json").read_text())
    # What is left to the data is stored as it was chosen.
    recipe = dataclasses.replace(tiny_recipe, backbone="tiny_network", jitter="given")
    assert description["recipe"] == json.loads(json.dumps(dataclasses.asdict(recipe)))
    assert frcnn.recipe(str(folder)) == recipe
    assert description["class_names"] == list("0123456789")
    assert description["train"] == prepared_digits[0].name
    assert description["proposals"] == json.loads(json.dumps(prepared_digits[0].proposals.to_json()))
    assert {name: description[name] for name in ("backbone", "weights", "seed", "roi_pooling")} == {
        "backbone": "tiny_network",
        "weights": "imagenet",
        "seed": 0,
        "roi_pooling": "auto",
    }


def test_log_has_losses_and_validation_map(tiny_run):
    folder, summary = tiny_run
    rows = log_of(folder)
    # Four steps per epoch: the end of each epoch is logged, and every tenth step.
    assert [row["step"] for row in rows] == [4, 8, 10, 12]
    for row in rows:
        assert row["loss"] == pytest.approx(row["class_loss"] + row["box_loss"], rel=1e-4)
        assert row["rate"] >= 0
    assert [row["step"] for row in rows if "mean_ap" in row] == [4, 8, 12]
    assert all(0 <= row["mean_ap"] <= 1 for row in rows if "mean_ap" in row)
    assert (summary.steps, summary.loss, summary.validation_map) == (12, rows[-1]["loss"], rows[-1]["mean_ap"])


def test_tensorboard_has_what_the_log_has(tiny_run):
    folder, _ = tiny_run
    (events,) = (folder / "tensorboard").iterdir()
    found = [
        (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    expected = [(name, row["step"], value) for row in log_of(folder) for name, value in row.items() if name != "step"]
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    np.testing.assert_allclose([entry[2] for entry in found], [entry[2] for entry in expected], rtol=1e-6)


def test_load_run(tiny_run):
    folder, _ = tiny_run
    run = load_run(str(folder))
    assert run.class_names == tuple("0123456789")
    assert (run.shorter_side, run.longer_side) == (96, 144)
    assert run.model.output["class_logits"].shape[-1] == 11
    assert frcnn.detection_settings(run, max_detections=5) == frcnn.DetectionSettings(
        96, 144, max_detections=5, screening_rank=32
    )


def test_the_loss_falls(train, prepared_digits, tiny_recipe, tmp_path):
    recipe = with_changes(tiny_recipe, {"steps": 40, "optimizer.learning_rate": 1e-3})
    summary = train(recipe, dataset=prepared_digits[0][:2])
    losses = [row["loss"] for row in log_of(tmp_path / "run")]
    assert summary.loss == losses[-1] < 0.6 * np.mean(losses[:3])


# --- interruption -----------------------------------------------------------------------------------------------------

# Trains with a pause in each step, so that the parent can kill it in the middle of an epoch.
TRAINER = """
import dataclasses, pickle, sys, time
import keras
import tf_fast_rcnn as frcnn
dataset, recipe, folder, backbone = pickle.load(open(sys.argv[1], "rb"))
class Pause(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print(int(self.model.optimizer.iterations.numpy()), flush=True)
        time.sleep(0.3)
frcnn.train(dataset, folder, recipe=recipe, backbone=backbone, progress=False, callbacks=[Pause()])
"""


def test_a_killed_run_goes_on_from_the_last_checkpoint(
    train, prepared_digits, tiny_recipe, tmp_path, monkeypatch, tiny_backbone
):
    recipe = dataclasses.replace(tiny_recipe, steps=14)
    folder = tmp_path / "run"
    (tmp_path / "arguments").write_bytes(pickle.dumps((prepared_digits[0], recipe, folder, tiny_backbone)))
    command = [sys.executable, "-c", TRAINER, tmp_path / "arguments"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        last_step = next(int(line) for line in process.stdout if int(line) >= 6)
        os.kill(process.pid, signal.SIGKILL)
    assert last_step == 6
    assert [path.name for path in (folder / "checkpoints").glob("step*")] == ["step-00000004.keras"]
    assert not (folder / "model.keras").exists()
    with pytest.raises(InputError, match=r"found a run without model.keras; .* repeat its `train` command"):
        load_run(folder)

    def kill(*_):
        raise KeyboardInterrupt

    steps = Steps()
    monkeypatch.setattr(run_folder, "save_model", kill)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder=folder, callbacks=[steps])
    assert steps.done == list(range(5, 15))

    # Killed again, between the last step and saving the model: nothing is left to train.
    monkeypatch.undo()
    summary = train(recipe, folder=folder, callbacks=[steps])
    assert steps.done == list(range(5, 15))
    assert [row["step"] for row in log_of(folder)] == [4, 8, 10, 12, 14]
    assert summary.steps == 14
    assert {path.name for path in folder.iterdir()} == FILES
    assert load_run(folder).class_names == tuple("0123456789")


def test_the_same_folder_takes_the_same_arguments_alone(train, tiny_run, tiny_recipe, tmp_path):
    folder, _ = tiny_run
    with pytest.raises(InputError, match="found a finished run; expected a new folder"):
        train(tiny_recipe, folder=folder)
    with pytest.raises(InputError, match="found a run with another seed; expected a new folder or the same command"):
        train(tiny_recipe, folder=folder, seed=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a training run; choose"):
        train(tiny_recipe, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_never_began_is_no_obstacle(train, tiny_recipe, tmp_path, no_steps):
    with pytest.raises(InputError, match="backbone: found 'bogus'"):
        train(tiny_recipe, backbone="bogus")
    train(tiny_recipe)
    assert load_run(tmp_path / "run").description["backbone"] == "tiny_network"


# --- what stops a run -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(train, tiny_recipe, tmp_path):
    recipe = dataclasses.replace(tiny_recipe, optimizer=OptimizerSettings(learning_rate=1e20))
    with pytest.raises(InputError, match=r"step [2-5]: found a loss of (nan|inf); .* lower the learning rate") as error:
        train(recipe)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "model.keras").exists()


def test_a_data_set_without_objects(train, prepared_digits, tmp_path):
    bare = [
        dataclasses.replace(record, boxes=[], class_ids=[], difficult=[], crowd=None) for record in prepared_digits[0]
    ]
    with pytest.raises(InputError, match="found no objects; expected annotated images"):
        train(None, dataset=prepared_digits[0].with_records(bare))
    assert not (tmp_path / "run").exists()


def test_a_recipe_for_other_classes(train, prepared_digits, tiny_recipe, tmp_path):
    with pytest.raises(
        InputError, match=r"^recipe small-data: found class '0' in .*; expected cat, dog; choose another"
    ):
        train(with_changes(tiny_recipe, {"class_names": "cat,dog"}))
    with pytest.raises(InputError, match=r"^class_weights: found class 'cat'; expected one of background, 0, 1, 2, "):
        train(with_changes(tiny_recipe, {"class_weights": {"cat": 2}}))
    assert not (tmp_path / "run").exists()


def test_class_weights_by_name(train, tiny_recipe, tmp_path, monkeypatch):
    losses = []
    monkeypatch.setattr(training_run, "_fit", lambda model, *rest: losses.append(model.loss["class_logits"]))
    train(with_changes(tiny_recipe, {"class_weights": {"background": 0.5, "3": 2}}))
    assert losses[0].class_weights == [0.5, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["other classes", "other layers", "never trained"])
def test_a_checkpoint_of_another_model(train, tiny_recipe, tiny_model, tiny_backbone, tmp_path, monkeypatch, kind):
    folder = tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr(training_run, "_fit", lambda *arguments: None)
        context.setattr(training_run, "_finish", lambda *arguments: None)
        train(tiny_recipe)
    model = tiny_model
    if kind != "other classes":
        units = (16,) if kind == "never trained" else (4,)
        model = frcnn.fast_rcnn(tiny_backbone, 10, stride=8, fc_units=units, dropout=0.0)
    if kind != "never trained":
        model.compile(optimizer=frcnn.sgd(0.1), loss=frcnn.multi_task_loss(model))
    run_folder.save_checkpoint(model, folder, 8)
    classes = 3 if kind == "other classes" else 10
    with pytest.raises(
        InputError, match=rf"checkpoints: found .* another model, with {classes} classes and .* weights"
    ):
        train(tiny_recipe)


# --- averaged weights, the best model ---------------------------------------------------------------------------------


class Weights(keras.callbacks.Callback):
    """Records the trained weights after each step, and reports an mAP from a list after each epoch."""

    def __init__(self, mean_aps=(), interrupt=None):
        super().__init__()
        self.after = {}
        self._mean_aps, self._interrupt = mean_aps, interrupt

    @property
    def step(self):
        return int(self.model.optimizer.iterations.numpy())

    def on_train_batch_end(self, batch, logs=None):
        self.after[self.step] = [variable.numpy() for variable in self.model.trainable_variables]
        if self.step == self._interrupt:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        if self._mean_aps:
            logs["mean_ap"] = self._mean_aps[(self.step - 1) // 4]


def trained_weights(folder):
    return [variable.numpy() for variable in load_run(folder).model.trainable_variables]


def test_the_average_of_the_weights_is_what_is_validated_and_saved(
    train, tiny_recipe, prepared_digits, tmp_path, monkeypatch
):
    recipe = with_changes(tiny_recipe, {"steps": 6, "optimizer.learning_rate": 0.01, "optimizer.average": 0.75})
    validated = {}

    def nothing(model, dataset, settings, progress):
        validated[weights.step] = [variable.numpy() for variable in model.trainable_variables]
        return [frcnn.Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))] * len(dataset)

    monkeypatch.setattr(models, "detect_dataset", nothing)
    weights = Weights()
    validation = models.ValidationMap(prepared_digits[1], frcnn.DetectionSettings(), progress=False)
    train(recipe, callbacks=[weights, validation])
    average, expected = weights.after[1], {}
    for step in range(2, 7):
        average = [0.75 * a + 0.25 * w for a, w in zip(average, weights.after[step], strict=True)]
        expected[step] = average
    assert list(validated) == [4, 6]
    validated["saved"], expected["saved"] = trained_weights(tmp_path / "run"), expected[6]
    for moment, found in validated.items():
        for one, other in zip(found, expected[moment], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert np.abs(expected[6][0] - weights.after[6][0]).max() > 1e-3


@pytest.mark.parametrize("interrupt", [None, pytest.param(6, marks=pytest.mark.slow), 10])
def test_early_stopping_keeps_the_best_model(train, tiny_recipe, tmp_path, interrupt):
    """Epochs of four steps; the second is the best, and two epochs without improvement follow."""
    mean_aps = [0.2, 0.5, 0.4, 0.5, 0.9]
    recipe = with_changes(tiny_recipe, {"steps": 20, "early_stopping": 2})
    weights = Weights(mean_aps, interrupt)
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, callbacks=[weights])
        again = Weights(mean_aps)
        again.after = weights.after
        weights = again
    summary = train(recipe, callbacks=[weights])
    assert (summary.steps, summary.validation_map) == (16, 0.5)
    for found, expected in zip(trained_weights(tmp_path / "run"), weights.after[8], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_run_that_was_killed_after_it_stopped_early_trains_no_more(train, tiny_recipe, tmp_path, monkeypatch):
    recipe = with_changes(tiny_recipe, {"steps": 20, "early_stopping": 1})

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(training_run, "_finish", kill)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, callbacks=[Weights([0.5, 0.4])])
    weights = Weights([0.5, 0.4, 0.9])
    summary = train(recipe, callbacks=[weights])
    assert weights.after == {}
    assert (summary.steps, summary.validation_map) == (8, 0.5)


def test_early_stopping_needs_a_validation_map(train, tiny_recipe):
    with pytest.raises(InputError, match=r"^early_stopping: found no validation mAP after an epoch; expected"):
        train(with_changes(tiny_recipe, {"early_stopping": 2}))


# --- optimisers -------------------------------------------------------------------------------------------------------


def test_any_keras_optimiser_and_schedule(train, tiny_recipe, tmp_path):
    """The logged learning rates follow the schedule; run.json names the optimiser."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.001, decay_steps=1, decay_rate=0.5)
    recipe = dataclasses.replace(tiny_recipe, steps=8, optimizer=keras.optimizers.Nadam(schedule))
    train(recipe)
    rates = [row["rate"] for row in log_of(tmp_path / "run")]
    np.testing.assert_allclose(rates, [0.001 * 0.5**4, 0.001 * 0.5**8], rtol=1e-4)
    assert load_run(tmp_path / "run").description["recipe"]["optimizer"]["class_name"] == "Nadam"


# --- weights of another run -------------------------------------------------------------------------------------------


def test_weights_of_a_run_with_the_same_classes(train, tiny_run, tiny_recipe, tmp_path, no_steps):
    folder, _ = tiny_run
    recipe = with_changes(tiny_recipe, {"optimizer.learning_rate": 0.123})
    train(recipe, weights=str(folder))
    source, target = load_run(folder).model, load_run(tmp_path / "run").model
    for expected, found in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    for name in ("mean", "std"):
        expected, found = (getattr(model.get_layer("box_deltas"), name) for model in (source, target))
        np.testing.assert_array_equal(found, expected)


def test_weights_of_a_run_with_other_classes(train, tiny_run, prepared_digits, tiny_recipe, tmp_path, no_steps):
    """The same number of classes in another order: the shapes of the predictor layers fit, but their classes do not."""
    folder, _ = tiny_run
    dataset = prepared_digits[0].with_class_names("9876543210")
    train(tiny_recipe, dataset=dataset, weights=str(folder), seed=3)
    source, target = load_run(folder).model, load_run(tmp_path / "run").model
    for layer in ("convolutions", "fc6"):
        for expected, found in zip(weights_of(source, layer), weights_of(target, layer), strict=True):
            np.testing.assert_array_equal(found, expected)
    for layer in ("class_logits", "box_regression"):
        kernels = [weights_of(model, layer)[0] for model in (source, target)]
        assert np.abs(kernels[0] - kernels[1]).max() > 1e-3
        assert not weights_of(target, layer)[1].any()


def test_the_backbone_must_fit_even_where_other_layers_do(train, tiny_run, tiny_recipe):
    """The predictor layers of another network would fit, but its backbone would keep random weights."""
    with pytest.raises(InputError, match=r"weights: found a run whose layers do not fit \(convolutions\)"):
        train(tiny_recipe, backbone="mobilenet", weights=str(tiny_run[0]))


def test_a_reused_stage_must_fit_too(train, tiny_run, tiny_recipe, tiny_backbone, tmp_path, no_steps):
    """It would keep random weights: the tiny run has new layers instead of the stage."""
    reused = with_changes(tiny_recipe, {"network.head": "reuse", "network.stride": 4})
    with pytest.raises(InputError, match=r"weights: found a run whose layers do not fit \(last_stage\)"):
        train(with_changes(reused, {"network.stride": 8}), weights=str(tiny_run[0]))
    train(reused, folder=tmp_path / "reused")
    train(reused, folder=tmp_path / "same", weights=str(tmp_path / "reused"), seed=4)
    source, target = (load_run(tmp_path / name).model for name in ("reused", "same"))
    for expected, found in zip(weights_of(source, "last_stage"), weights_of(target, "last_stage"), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(weights_of(source, "last_stage")) == 2  # conv2


def test_weights_of_a_folder_that_is_no_run(train, tiny_recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: found no run.json"):
        train(tiny_recipe, weights=str(tmp_path / "empty"))


# --- epochs -----------------------------------------------------------------------------------------------------------


def test_segments_lead_from_any_step_to_the_end():
    for steps_per_epoch, steps in itertools.product(range(1, 9), range(0, 20)):
        for step in range(0, steps + 1):
            segments = _segments(step, steps, steps_per_epoch)
            ends = list(itertools.accumulate([n for epochs, n in segments for _ in range(epochs)], initial=step))[1:]
            boundaries = [end for end in range(step + 1, steps + 1) if end % steps_per_epoch == 0 or end == steps]
            assert ends == boundaries, (step, steps, steps_per_epoch)
            assert len(segments) <= 3
