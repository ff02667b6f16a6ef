"""docs/serving.md: its commands are ones that the programs take, its Python runs, its numbers are the code's."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "serving.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (tf-fast-rcnn (?:export|serve) .*)$", PAGE, re.MULTILINE)]
CLIENT_COMMANDS = [
    shlex.split(line)[2:] for line in re.findall(r"^    (python serving/client.py .*)$", PAGE, re.MULTILINE)
]


@pytest.fixture
def modules(monkeypatch):
    """`prediction` and `client` of serving/."""
    monkeypatch.syspath_prepend(str(PROJECT / "serving"))
    return importlib.import_module("prediction"), importlib.import_module("client")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands(command):
    assert callable(cli._parse(command[1:]).run)


@pytest.mark.parametrize("command", CLIENT_COMMANDS, ids=" ".join)
def test_client_commands(modules, command):
    assert modules[1]._parser().parse_args(command).model == "cells"


def test_commands_were_found():
    assert len(COMMANDS) >= 3
    assert len(CLIENT_COMMANDS) >= 3


def test_files_that_the_page_names():
    named = set(re.findall(r"`?((?:serving|tests)/[\w/.-]+\.\w+)", PAGE)) | {"serving/custom_ops_server/BUILD"}
    assert len(named) >= 5
    assert [name for name in named if not (PROJECT / name).is_file()] == []


def test_limits_are_the_defaults():
    limits = frcnn.ServingLimits()
    listed = re.findall(r"^\| `--(max-(?:request-)?\w+)` \| (\d+)", PAGE, re.MULTILINE)
    # The option's longer name distinguishes it from the limit for computed proposals.
    names = {name: name.replace("-request", "").replace("-", "_") for name, _ in listed}
    assert {names[name]: int(value) for name, value in listed} == vars(limits)


def test_python(modules, tmp_path, monkeypatch, capsys):
    """With a server's place taken by an answer."""
    prediction = modules[0]
    (tmp_path / "cell.jpg").write_bytes(b"image")
    monkeypatch.chdir(tmp_path)
    asked = []

    def send(client, signature, inputs, seconds):
        asked.append((signature, list(inputs["image_bytes"]), seconds))
        return {
            "detection_boxes": [[[0, 0, 1, 1]]],
            "detection_scores": [[0.5]],
            "detection_classes": [[1]],
            "num_detections": [1],
            "detection_class_names": [["RBC"]],
        }

    monkeypatch.setattr(prediction.GrpcClient, "_send", send)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    ((signature, images, seconds),) = asked
    assert (signature, images) == ("detect_image_bytes", [b"image"])
    assert 9 < seconds <= 10
    assert capsys.readouterr().out == "RBC 0.5 [0. 0. 1. 1.]\n"


def test_tries_and_message_size_are_the_clients(modules):
    prediction = modules[0]
    text = " ".join(PAGE.split())
    assert f"up to {prediction.GrpcClient('server:8500', 'cells')._tries} times" in text
    assert f"raised to {prediction.MAX_MESSAGE_BYTES >> 20} MB" in text
