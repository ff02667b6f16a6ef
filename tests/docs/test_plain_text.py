"""Docstrings and help texts as the documentation site reads them."""

import importlib.util
from pathlib import Path

import pytest
from docutils.core import publish_doctree

PATH = Path(__file__).parents[2] / "docs" / "extensions" / "plain_text.py"
SPEC = importlib.util.spec_from_file_location("plain_text", PATH)
plain_text = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plain_text)


def parse(text):
    """The document that docutils builds from reStructuredText; any warning is an error."""
    return publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2})


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "`a` and `[B, H]`",
        "several `RoI`s, and pre`fixed`",
        "a * b, *args and **options, R*",
        "METHOD|FILE and a|b|c",
        "class_ and fc6_, name_ of",
        "a `code that is\nwrapped` over lines",
        "C:\\path, `a\\b`",
        "a `weight * rate_` of it",
    ],
)
def test_text_reads_the_same(text):
    shown = parse(plain_text.rst_of_text(text)).astext()
    assert shown.split() == text.replace("`", "").split()


def test_code_is_code():
    tree = parse(plain_text.rst_of_text("a `b c` and ``d`` e"))
    assert [node.astext() for node in tree.findall() if node.tagname == "literal"] == ["b c", "d"]


def test_examples_and_names_of_arguments_stay_as_they_are():
    lines = [
        "Two `words` of a_ title.",
        "",
        "Args:",
        "    rate: `x * y`.",
        "    **options: of `K|L`, a|b.",
        "",
        "Example:",
        "    >>> f(`a`, *b_)",
        "    x_ | y",
    ]
    assert plain_text.rst_of_docstring(lines) == [
        "Two ``words`` of a\\_ title.",
        "",
        "Args:",
        "    rate: ``x * y``.",
        "    **options: of ``K|L``, a\\|b.",
        "",
        "Example:",
        "    >>> f(`a`, *b_)",
        "    x_ | y",
    ]
