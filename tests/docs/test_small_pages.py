"""docs/tflite.md and docs/tfjs.md: the command line accepts their commands, the Python runs, links lead to files."""

import re
import shlex
from pathlib import Path

import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import cli

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text() for name in ("tflite.md", "tfjs.md")}
COMMANDS = [
    shlex.split(line)[1:]
    for page in PAGES.values()
    for line in re.findall(r"^    (tf-fast-rcnn .*)$", page, flags=re.MULTILINE)
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_are_understood(arguments):
    options = cli._parser(arguments).parse_args(arguments)
    assert options.folder == "runs/cells"


def test_python(tiny_run, digits, tmp_path, monkeypatch):
    run = frcnn.load_run(tiny_run[0])
    settings = frcnn.detection_settings(run, max_detections=5)
    frcnn.export_tflite(run.model, tmp_path / "cells.tflite", class_names=run.class_names, settings=settings)
    (tmp_path / "street.jpg").symlink_to(next((digits / "JPEGImages").iterdir()))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["tflite.md"], flags=re.DOTALL)
    names = {}
    exec(code, names)
    assert names["detections"]["detection_boxes"].shape == (1, 5, 4)


def test_tables_name_the_inputs_and_outputs(tiny_model):
    from tf_fast_rcnn.export.single_image import OUTPUTS, portable_detector, serving_function

    function = serving_function(portable_detector(tiny_model, None, ("a", "b", "c")))
    expected = [spec.name for spec in function.input_signature] + list(OUTPUTS)
    assert re.findall(r"^\| `([a-z_]+)` \|", PAGES["tflite.md"], flags=re.MULTILINE) == expected


def test_what_the_page_links_to_exists():
    links = re.findall(r"\]\(([^)#]+)", PAGES["tfjs.md"])
    assert len(links) == 5
    assert all((DOCS / link).exists() for link in links)
