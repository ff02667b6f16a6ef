"""docs/tables.md matches the code: its commands parse, and its tables, sentences and numbers are those of the code."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from tf_fast_rcnn import cli
from tf_fast_rcnn.commands import tables
from tf_fast_rcnn.tables import report
from tf_fast_rcnn.tables.definitions import TABLES, measurements
from tf_fast_rcnn.tables.trainings import TRAININGS, base_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
SHOWN = re.findall(r"^ {4}(tf-fast-rcnn (?:.*\\\n)*.*)$", PAGE, flags=re.MULTILINE)
EXAMPLES = re.findall(r"^ {2}(tf-fast-rcnn (?:.*\\\n)*.*)$", tables.EXAMPLES, flags=re.MULTILINE)
INLINE = [f"tf-fast-rcnn tables --data a:b --out c {text}" for text in re.findall(r"`(--[a-z]+ [^`]+)`", PAGE)]


@pytest.mark.parametrize("command", [*SHOWN, *EXAMPLES, *INLINE])
def test_commands(command):
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    options = cli._parser(arguments).parse_args(arguments)
    assert options.run is tables.run
    assert set(options.only or ()) <= set(TABLES)


def test_commands_were_found():
    assert len(SHOWN) >= 1
    assert len(EXAMPLES) == 3
    assert len(INLINE) >= 2


def test_every_table_is_listed():
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE, flags=re.MULTILINE) == list(TABLES)
    assert all(f"{name}" in tables.EXAMPLES for name in TABLES)
    assert f"{len(TRAININGS)} trainings and {len(measurements(TABLES))} tests per seed" in " ".join(PAGE.split())


def test_results_have_the_sentences_of_tables_md():
    """The page's results are a copy of a tables.md, rewrapped and with headings one level deeper."""
    page = " ".join(PAGE.split())
    for name, table in TABLES.items():
        assert f"### {table.title} {table.finding} | | mAP |" in page
        assert f"![{table.title}](images/tables-{name}.png)" in page
    setup = SimpleNamespace(
        recipe=base_recipe("small-data", 300, 320),
        backbone="efficientnet_lite0",
        train=range(205),
        test=range(87),
        protocol="voc07",
    )
    assert report._head(setup) in page


def test_pictures_are_there():
    folder = Path(__file__).parents[2] / "docs"
    assert all((folder / path).is_file() for path in re.findall(r"!\[.*?\]\((.*?)\)", PAGE))
