"""docs/training.md: the command line accepts its commands and settings, its Python runs, and its table agrees with the
recipes."""

import functools
import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli
from tf_fast_rcnn.commands.train import _changes
from tf_fast_rcnn.training.recipes import RECIPES
from tf_fast_rcnn.training.run import TrainingSummary

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]
# Options within a sentence or a table.
OPTIONS = [shlex.split(text) for text in re.findall(r"`(--(?:set|dtype) [^`]*)`", PAGE) if "KEY=" not in text]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_give_a_recipe(arguments):
    options = cli._parser(arguments).parse_args(arguments)
    recipe = frcnn.recipe(options.recipe, _changes(options))
    assert recipe.name == options.recipe
    changed = [name for name, _ in options.set]
    assert all(f"--set {name}=" in PAGE for name in changed)


@pytest.mark.parametrize("arguments", OPTIONS, ids=" ".join)
def test_options_in_the_text_change_a_recipe(arguments):
    """`jitter=given` is the paper's recipes' own value, and `class_names=none` that of small-data."""
    command = ["train", "--train", "voc:cells@train", "--out", "run", *arguments]
    options = cli._parser(command).parse_args(command)
    changed = {name: frcnn.recipe(name, _changes(options)) != frcnn.recipe(name) for name in ("voc07", "small-data")}
    assert all(changed.values()) or (
        any(changed.values()) and {"class_names=none", "jitter=given"}.intersection(arguments)
    )


def test_options_were_found():
    assert len(COMMANDS) >= 8
    assert len(OPTIONS) >= 6


def test_python(digits, tmp_path, monkeypatch, capsys):
    (tmp_path / "cells").symlink_to(digits)
    monkeypatch.chdir(tmp_path)
    taken = []

    def train(dataset, out, *, recipe):
        taken.append((dataset.name, recipe))
        return TrainingSummary(out, recipe.steps, 0.0, 0.25, None)

    monkeypatch.setattr(frcnn, "train", train, raising=False)
    code, *_ = PYTHON
    exec(code, {})
    ((name, recipe),) = taken
    assert name == "voc:cells@train"
    assert (recipe.steps, recipe.sampling.horizontal_flip_prob, recipe.optimizer["class_name"]) == (500, 0.0, "Lion")
    assert capsys.readouterr().out == "0.25\n"


@pytest.mark.parametrize("name", RECIPES)
def test_the_table_says_what_the_recipe_says(name):
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    recipe = frcnn.recipe(name)
    steps = f"{recipe.steps // 1000}k" if recipe.steps > 1000 else str(recipe.steps)
    assert row.split("|")[3].strip() == steps
    if recipe.optimizer.schedule == "step" and name not in ("voc10", "voc12"):
        falls = round(recipe.optimizer.lr_milestones[0] * recipe.steps / 1000)
        assert f"0.0001 from {falls}k on" in row


def test_the_other_python_runs(prepared_digits, tiny_backbone, tmp_path, monkeypatch):
    """Resuming, several devices and weights of images: each defines a function, called here with small settings."""
    monkeypatch.chdir(tmp_path)
    batches = frcnn.hierarchical_batches
    small = {"shorter_side": 64, "longer_side": 96, "rois_per_batch": 16}
    monkeypatch.setattr(frcnn, "hierarchical_batches", lambda data, **options: batches(data, **options | small))
    monkeypatch.setattr(frcnn, "fast_rcnn", functools.partial(frcnn.fast_rcnn, stride=8, fc_units=(8,)))
    resuming, devices, weights = (run_definitions(code) for code in PYTHON[1:])

    model = frcnn.fast_rcnn(tiny_backbone, 10)
    model.compile(frcnn.sgd(0.001), frcnn.multi_task_loss(model), jit_compile=False)
    assert len(resuming["fit"](model, prepared_digits[0], epochs=1).history["loss"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", lambda model, data, **_: next(iter(data))[0]["images"].shape)
        shape = devices["fit"](tf.distribute.get_strategy(), tiny_backbone, prepared_digits[0])
    assert shape == (4, 600, 1000, 3)
    weighted = batches(prepared_digits[0], 2, 16).take(1).map(weights["favour_first_image"])
    assert np.isfinite(model.evaluate(weighted, verbose=0)).all()


def run_definitions(code):
    names = {"tf": tf}
    exec(code, names)
    return names
