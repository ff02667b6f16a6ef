"""docs/pre_annotations.md: its commands are understood, and its table names all kinds."""

import re
import shlex
from pathlib import Path

import pytest

from tf_fast_rcnn import cli
from tf_fast_rcnn.data.specs import _READERS, _UNION
from tf_fast_rcnn.data.writers.convert import SAVE_KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "pre_annotations.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (tf-fast-rcnn .*)$", PAGE, flags=re.MULTILINE)]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_are_understood(arguments):
    options = cli._parser(arguments).parse_args(arguments)
    if arguments[0] == "train":
        parts = _UNION.split(options.train)
        assert len(parts) == 2
        assert all(part.partition(":")[0] in _READERS for part in parts)


def test_the_table_names_all_kinds():
    assert set(re.findall(r"^\| `([a-z][a-z-]+)` \|", PAGE, flags=re.MULTILINE)) == set(SAVE_KINDS)
