"""What docs/detection.md shows: its commands are ones that the command line takes, its Python runs, and its table says
what the options' defaults are."""

import re
import shlex
from pathlib import Path

import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli
from tf_fast_rcnn.training.recipes import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
PYTHON = "".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]
SETTINGS = PAGE.partition("## Settings")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (`--.*?) \| (.*?) \|", SETTINGS, flags=re.MULTILINE)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_are_understood(arguments):
    options = cli._parser(arguments).parse_args(arguments)
    assert options.folder.startswith("runs/")


def test_the_table_says_the_defaults():
    options = cli._parser(["detect"]).parse_args(["detect", "run", "image.jpg"])
    settings = frcnn.DetectionSettings()
    assert len(ROWS) == 13
    for names, default in ROWS:
        for name in re.findall(r"--[a-z-]+", names):
            found = getattr(options, name[2:].replace("-", "_"))
            words = {
                "all": None,
                "off": False,
                "those of training": None,
                "the recipe's: 0.4 in `small-data`, 0.3 in the others": None,
                "the recipe's: 32 in `small-data`, none in the others": None,
            }
            assert str(found) == default or found == words[default]
            field = name[2:].replace("-", "_")
            if default not in words and hasattr(settings, field):
                assert found == getattr(settings, field)


def test_thresholds_of_the_recipes():
    assert {name: make().nms_iou_threshold for name, make in RECIPES.items()} == {
        name: 0.4 if name == "small-data" else 0.3 for name in RECIPES
    }


def test_python(tiny_run, digits, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cells").symlink_to(tiny_run[0])
    for name, image in (("cell.jpg", "test_0001.jpg"), ("other.jpg", "test_0002.jpg")):
        (tmp_path / name).symlink_to(digits / "JPEGImages" / image)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(PYTHON, names)
    run = frcnn.load_run(tiny_run[0])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{len(names['found'])} objects"
    assert [line.split()[0] for line in lines[1 : len(names["found"]) + 1]] == names["found"].names
    assert f"(2, {len(run.class_names) + 1})" in lines
    assert (tmp_path / "drawn.png").is_file()
    assert len(names["first"].scores) == len(names["found"].scores)
    assert names["probabilities"].sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert names["small"].get_layer("fc6_v").units == 8
