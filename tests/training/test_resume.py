"""A run that is interrupted at any moment ends with exactly the same weights as an uninterrupted one.

Dropout draws, weights are averaged, gradients accumulated and the rate follows a schedule: all of it must go on.
"""

import json
import os
import pickle
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import files
from tf_fast_rcnn.training import callbacks as training_callbacks
from tf_fast_rcnn.training import run_folder
from tf_fast_rcnn.training.settings import with_changes

STEPS = 11  # two epochs of four mini-batches, and a part of one
EVERYTHING = {
    "steps": STEPS,
    "network.dropout": 0.5,
    "optimizer.learning_rate": 0.01,
    "optimizer.average": 0.8,
    "optimizer.accumulation": 3,
}
VARIANTS = {
    "adamw": {"optimizer.kind": "adamw"},
    "sgd in float16": {"optimizer.kind": "sgd", "optimizer.accumulation": 1, "dtype": "mixed_float16"},
}


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after this number of mini-batches since the start or the resumption."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def train(prepared_digits, tiny_recipe, tiny_backbone, tmp_path_factory):
    """Trains a variant into a folder; returns the weights of its model."""

    def run(folder, variant, callbacks=()):
        recipe = with_changes(tiny_recipe, EVERYTHING | VARIANTS[variant])
        frcnn.train(
            prepared_digits[0], folder, recipe=recipe, backbone=tiny_backbone, progress=False, callbacks=callbacks
        )
        return frcnn.load_run(folder).model.get_weights()

    return run


@pytest.fixture(scope="module")
def undisturbed(train, tmp_path_factory):
    """The weights of an uninterrupted run, by variant."""
    return {variant: train(tmp_path_factory.mktemp("undisturbed") / "run", variant) for variant in VARIANTS}


def assert_same(weights, folder, expected):
    """The losses in the log cover the mini-batches since the previous row, which an interruption may cut short; so only
    the steps must be the same."""
    for found, wanted in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 10, 11]
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(("variant", "sittings"), [("adamw", [(3, None), (7, 6)]), ("sgd in float16", [(7, 6)])])
def test_interrupted_in_the_middle_of_epochs(train, undisturbed, tmp_path, monkeypatch, variant, sittings):
    """Before the first checkpoint, and between the checkpoints within an epoch, at multiples of 3."""
    monkeypatch.setattr(training_callbacks, "_CHECKPOINT_INTERVAL", 3)
    folder = tmp_path / "run"
    for steps, checkpoint in sittings:
        with pytest.raises(KeyboardInterrupt):
            train(folder, variant, [Interrupt(steps)])
        last = run_folder.last_checkpoint(folder)
        assert (last and last[1]) == checkpoint
    assert_same(train(folder, variant), folder, undisturbed[variant])


@pytest.mark.parametrize(("doomed", "left"), [("step-00000008.keras", 4), ("model.keras", 11)])
def test_interrupted_before_a_file_has_its_name(train, undisturbed, tmp_path, monkeypatch, doomed, left):
    folder = tmp_path / "run"
    replace = os.replace

    def killed(source, target):
        if target.name == doomed:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train(folder, "adamw")
    monkeypatch.undo()
    assert run_folder.last_checkpoint(folder)[1] == left
    assert_same(train(folder, "adamw"), folder, undisturbed["adamw"])


# Prints each step, and "writing" while a checkpoint waits for its rename, for the parent to kill it there.
TRAINER = """
import os, pickle, sys, time
import keras
import tf_fast_rcnn as frcnn
from tf_fast_rcnn import files
from tf_fast_rcnn.training import callbacks
callbacks._CHECKPOINT_INTERVAL = 3
dataset, recipe, folder, backbone = pickle.load(open(sys.argv[1], "rb"))
def say(text):
    print(text, flush=True)
    time.sleep(0.2)
class Steps(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        say("step")
replace = os.replace
def slow_replace(source, target):
    say("writing " + os.path.basename(target))
    replace(source, target)
files.os.replace = slow_replace
frcnn.train(dataset, folder, recipe=recipe, backbone=backbone, progress=False, callbacks=[Steps()])
"""


def sitting(arguments, kill_at):
    """Runs the trainer until it has printed `kill_at`, (text, times), or to its end; returns its output."""
    command = [sys.executable, "-c", TRAINER, arguments]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            said.append(line.strip())
            if kill_at and said.count(kill_at[0]) == kill_at[1]:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == (-signal.SIGKILL if kill_at else 0)
    return said


@pytest.mark.slow  # six processes that import TensorFlow
def test_killed_at_several_moments(prepared_digits, tiny_recipe, tiny_backbone, tmp_path):
    recipe = with_changes(tiny_recipe, EVERYTHING | VARIANTS["adamw"])
    folders = [tmp_path / "killed", tmp_path / "undisturbed"]
    for folder in folders:
        values = (prepared_digits[0], recipe, folder, tiny_backbone)
        folder.with_suffix(".pickle").write_bytes(pickle.dumps(values))
    killed, undisturbed = (folder.with_suffix(".pickle") for folder in folders)
    sitting(undisturbed, None)
    moments = [
        ("step", 2),  # before any checkpoint
        ("writing step-00000004.keras", 1),  # between a checkpoint's bytes and its name
        ("step", 4),  # in the middle of an epoch
        ("writing model.keras", 1),
    ]
    steps = [len([line for line in sitting(killed, moment) if line == "step"]) for moment in moments]
    # From the checkpoints 0, 0, 3 and 6.
    assert steps == [2, 4, 4, 5]
    sitting(killed, None)
    expected = frcnn.load_run(folders[1]).model.get_weights()
    assert_same(frcnn.load_run(folders[0]).model.get_weights(), folders[0], expected)
