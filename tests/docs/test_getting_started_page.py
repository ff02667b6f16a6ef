"""docs/getting_started.md works as written: the command line accepts its commands, and its Python runs."""

import re
import shlex
from pathlib import Path

import pytest

from tf_fast_rcnn import cli

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "getting_started.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_are_understood(arguments):
    assert callable(cli._parser(arguments).parse_args(arguments).run)


def test_the_commands_lead_from_annotations_to_detections():
    assert [arguments[0] for arguments in COMMANDS] == ["browse", "train", "evaluate", "detect"]


def test_links_lead_to_pages():
    links = re.findall(r"\]\((\w+\.md)\)", PAGE)
    assert len(links) >= 10
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_python(tiny_run, digits, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "streets").symlink_to(tiny_run[0])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "street.jpg").symlink_to(digits / "JPEGImages" / "test_0001.jpg")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {}
    exec(code, names)
    assert names["detections"].boxes.shape == (len(names["detections"].scores), 4)
    assert all(score > 0.5 for score in names["detections"].scores)
    assert (tmp_path / "street.png").is_file()
