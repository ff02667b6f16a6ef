"""The examples of docs/selective_search.md work as written, and the files that it names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/selective_search.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number):
    exec(EXAMPLES[number], {})


def test_files_that_the_page_names():
    sources = set(re.findall(r"`(\w+\.cc)`", PAGE))
    assert len(sources) >= 8
    for name in sources:
        assert (ROOT / "custom_ops/cc/selective_search" / name).exists()
    for picture in re.findall(r"\((images/.*?)\)", PAGE):
        assert (ROOT / "docs" / picture).exists()
