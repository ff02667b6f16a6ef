"""The README works as written: its Python runs, and the command line accepts its commands."""

import re
import shlex
from pathlib import Path

import pytest

from tf_fast_rcnn import cli

README = (Path(__file__).parents[2] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", README, flags=re.MULTILINE)]


@pytest.fixture(scope="module")
def training_code():
    """Both blocks: the second one continues the first."""
    short, step_by_step = (code for code in PYTHON if "frcnn.train(" in code or "model.fit" in code)
    return short + step_by_step


QUICK = 'frcnn.recipe("small-data", {"steps": 2, "sampling.shorter_side": 160, "tile": None})'


def test_training_in_python(training_code, digits, tiny_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture = next((digits / "JPEGImages").iterdir())
    small = {
        "voc:BCCD@trainval": f"voc:{digits}@train",
        "voc:BCCD@test": f"voc:{digits}@test",
        "BCCD/JPEGImages/BloodImage_00007.jpg": str(picture),
        '"runs/cells")\n\n': f'"runs/cells", recipe={QUICK})\n\n',
        "rois_per_batch=128, seed=0": "rois_per_batch=128, seed=0, shorter_side=160",
        "epochs=5": "epochs=1",
        # The first block trains the real network; here a small one takes its place.
        '"efficientnet_lite0", len': "tiny_backbone, len",
        '"stride": (8, 16, 32)': '"stride": (4, 8)',
    }
    for written, smaller in small.items():
        assert written in training_code
        training_code = training_code.replace(written, smaller)
    names = {"tiny_backbone": tiny_backbone}
    exec(training_code, names)
    printed = capsys.readouterr().out
    assert "mean AP" in printed
    assert (tmp_path / "cells.png").is_file()
    assert names["model"].optimizer.iterations == len(names["train"]) // 2
    assert (tmp_path / "models/cells/1/saved_model.pb").is_file()


def test_roi_pooling_alone():
    (code,) = [code for code in PYTHON if "frcnn.roi_pool(" in code]
    names = {}
    exec(code, names)
    pooled = names["frcnn"].roi_pool(names["features"], names["rois"], (7, 7), 1 / 16)
    assert pooled.shape == names["layer"](names["features"], names["rois"]).shape == (1, 1, 7, 7, 512)


def test_selective_search_alone(digits, tmp_path, monkeypatch):
    (code,) = [code for code in PYTHON if "frcnn.selective_search(" in code]
    (tmp_path / "street.jpg").symlink_to(next((digits / "JPEGImages").iterdir()))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["boxes"].shape[1] == 4
    assert 1 <= len(names["boxes"]) <= 2000


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_are_known(arguments):
    options = cli._parser(arguments).parse_args([argument for argument in arguments if argument != "\\"])
    assert callable(options.run)


def test_the_pictures_exist():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert all((Path(__file__).parents[2] / picture).is_file() for picture in pictures)
