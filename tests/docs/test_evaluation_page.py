"""What docs/evaluation.md shows: its commands are ones that the command line takes, its Python runs, its keys exist."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli
from tf_fast_rcnn.evaluation.breakdown import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
OFFLINE, TRAINING = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
TEXTS = re.findall(r"^    (tf-fast-rcnn .*)$|`(tf-fast-rcnn [^`]*)`", PAGE, flags=re.MULTILINE)
COMMANDS = [shlex.split(first or second)[1:] for first, second in TEXTS]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands(arguments):
    options = cli._parser(arguments).parse_args(arguments)
    assert options.data
    assert bool(options.model) != bool(options.detections)


def test_commands_were_found():
    assert len(COMMANDS) >= 8


def write_results(folder, dataset):
    """The annotated objects as detections, every third one in a wrong place."""
    rng = np.random.default_rng(0)
    found = []
    for record in dataset:
        boxes = record.boxes + np.where(rng.random((len(record.class_ids), 1)) < 0.3, 0.5, 0.0)
        found.append(frcnn.Detections(boxes.astype(np.float32), rng.random(len(boxes), np.float32), record.class_ids))
    return frcnn.write_comp4(folder, dataset, found, dataset.class_names)


def test_python(digits, tmp_path, monkeypatch, capsys):
    (tmp_path / "cells").symlink_to(digits)
    monkeypatch.chdir(tmp_path)
    dataset = frcnn.load_dataset("voc:cells@test")
    written = write_results("results", dataset)
    exec(OFFLINE, {})
    *table, worst = capsys.readouterr().out.splitlines()
    assert table[-1].startswith("mean AP")
    assert "90 % interval" in table[0]
    assert worst in {*KINDS, "false positives", "false negatives"}
    for path in written:
        again = sorted((Path("again") / path.name).read_text().splitlines())
        assert again == sorted(path.read_text().splitlines())
    facts = json.loads(Path("report/metrics.json").read_text())
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if line.startswith("| `protocol`, `iou")]
    rows += [line.split("|")[1:3] for line in PAGE.splitlines() if re.match(r"\| `(cl|conf|br|cal|prop)", line)]
    keys = {key for names, _ in rows for key in re.findall(r"`(\w+)`", names)}
    assert keys == set(facts) - {"name", "data"}


def test_kinds_are_those_of_the_code():
    rows = re.findall(r"^\| (\w+) \| (?:enough|an overlap|too|the object|nothing|an object)", PAGE, flags=re.MULTILINE)
    assert rows == list(KINDS)


def test_callback(prepared_digits, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, val = prepared_digits
    # Detection is at its full size here: few proposals keep it short.
    val = val.with_records([dataclasses.replace(val[0], proposal_boxes=val[0].proposals()[:20])])
    model = frcnn.fast_rcnn(tiny_backbone, 10, stride=8, roi_output_size=(3, 3), fc_units=(12,))
    model.compile(frcnn.sgd(1e-4), loss=frcnn.multi_task_loss(model), jit_compile=False)
    batches = frcnn.hierarchical_batches(train, rois_per_batch=8, shorter_side=96, longer_side=144)
    known = {"frcnn": frcnn, "keras": keras, "val": val, "batches": batches, "model": model}
    exec(TRAINING, known)
    assert list((tmp_path / "logs" / "validation").iterdir())
    assert list((tmp_path / "logs" / "train").iterdir())
    assert model.history.history["mean_ap"][-1] >= 0
    assert {f"ap/{label}" for label in val[0].class_ids - 1} <= set(model.history.history)
