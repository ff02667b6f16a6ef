"""docs/paper_to_code.md: every file, function, recipe and table that it names exists, and no section is left out."""

import ast
import re
from pathlib import Path

import pytest

from tf_fast_rcnn.tables.definitions import TABLES
from tf_fast_rcnn.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper_to_code.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")][2:]
PATHS = sorted(set(re.findall(r"`([\w/-]+(?:\.\w+|/))`", PAGE)))
NAMES = [
    (path, name)
    for _, _, where in ROWS
    for path, names in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", where)
    for name in re.findall(r"`(\w+)`", names)
]
SECTIONS = ["2", "2.1", "2.2", "2.3", "2.4", "3", "3.1", "4", "4.1", "4.2", "4.3", "4.4", "4.5"]
SECTIONS += [f"5.{number}" for number in range(1, 7)]

# The page describes the layout in which `models/` exists.
pytestmark = pytest.mark.skipif(not (ROOT / "tf_fast_rcnn" / "models").is_dir(), reason="the layout before models/")


def source(path):
    return next(root / path for root in (ROOT / "tf_fast_rcnn", ROOT) if (root / path).exists())


@pytest.mark.parametrize("path", PATHS)
def test_files_exist(path):
    assert source(path).exists()


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_functions_and_settings_exist(path, name):
    defined = set()
    for node in ast.walk(ast.parse(source(path).read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert name in defined


def test_tables_and_recipes_exist():
    named = [name for _, _, where in ROWS for name in re.findall(r"`tables/`: `([\w-]+)`", where)]
    assert {"multi-task", "layers", "scales", "svms", "proposals", "svd"} == set(named) <= set(TABLES)
    recipes = {name for _, what, _ in ROWS if "recipe" in what for name in re.findall(r"`(\w+)`", what)}
    assert {"voc0712", "voc10", "voc12", "coco"} == recipes <= set(RECIPES)


def test_every_section_is_there():
    found = [number for paper, _, _ in ROWS for number in re.findall(r"(?:^|, )(\d(?:\.\d)?)(?= |,)", paper)]
    assert list(dict.fromkeys(found)) == SECTIONS


def test_what_is_shown_was_found():
    assert len(PATHS) >= 40
    assert len(NAMES) >= 15
