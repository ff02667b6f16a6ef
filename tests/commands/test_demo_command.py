"""`tf-fast-rcnn demo`."""

import json
import re

import pytest
from PIL import Image


def test_an_existing_folder_is_refused_at_once(refused, tmp_path):
    assert "found an existing file or folder; expected a new one; choose another --out" in refused(
        "demo", "--out", tmp_path
    )


@pytest.mark.slow
def test_demo_end_to_end(command, tmp_path):
    done = command("demo", "--out", tmp_path / "demo", "--steps", 10, "--images", 12, "--json", tmp_path / "a.json")
    assert done.code == 0, done.err
    facts = json.loads((tmp_path / "a.json").read_text())
    assert [row["name"] for row in facts["classes"]] == list("0123456789")
    assert facts["num_images"] == 60
    assert f"open {tmp_path}/demo/index.html" in done.out
    page = (tmp_path / "demo" / "index.html").read_text()
    references = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(references) >= 14
    assert "evaluation/index.html" in references
    for reference in set(references) - {"evaluation/index.html"}:
        with Image.open(tmp_path / "demo" / reference) as picture:
            picture.verify()
    for folder in re.findall(r"<code>([\w./]+/)</code>", page):
        assert (tmp_path / "demo" / folder).is_dir()
    assert (tmp_path / "demo" / "evaluation" / "index.html").is_file()
    assert (tmp_path / "demo" / "export" / "1" / "saved_model.pb").is_file()
