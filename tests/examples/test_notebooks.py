"""The notebooks of examples/notebooks run without an error on small data, show pictures, and their figures are sane."""

import base64
import io
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402

# What keeps each below half a minute of processor time.
SMALL = {
    "own_data": {"TRAIN_IMAGES": 16, "TEST_IMAGES": 4, "STEPS": 20, "SHORTER_SIDE": 160},
    "roi_pooling": {"TRAIN_IMAGES": 60, "TEST_IMAGES": 20, "EPOCHS": 10},
    "serve_and_query": {"TRAIN_IMAGES": 8},
}


def executed(name, **parameters):
    """The notebook after it ran on small data; fails where a cell raises."""
    return notebooks.execute(notebooks.read_notebook(notebooks.SOURCES / f"{name}.py", SMALL[name] | parameters))


def printed(notebook):
    """The text that all cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(notebook):
    """The PNG pictures of all cells, as arrays."""
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    encoded = [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]
    return [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in encoded]


def check(notebook, expected_pictures):
    """All code cells ran, and there are so many pictures, none of which is of one colour."""
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    shown = pictures(notebook)
    assert len(shown) == expected_pictures
    assert all(min(picture.shape[:2]) > 100 and picture.std() > 10 for picture in shown)


def numbers(pattern, text):
    """The groups of the only match of a pattern, as floats."""
    (match,) = re.finditer(pattern, text)
    return [float(group) for group in match.groups()]


def test_every_notebook_is_tested_and_linked():
    names = {path.stem for path in notebooks.SOURCES.glob("*.py")}
    assert names == set(SMALL)
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert set(re.findall(r"\]\(\.\./examples/notebooks/(\w+)\.py\)", page)) == names


@pytest.mark.parametrize("name", SMALL)
def test_notebooks_are_short_and_begin_with_a_title(name):
    cells = notebooks.read_notebook(notebooks.SOURCES / f"{name}.py").cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert 10 <= len(cells) <= 15


def test_unknown_parameters_are_refused():
    with pytest.raises(ValueError, match="found TEPS; expected some of SHORTER_SIDE, STEPS, TEST_IMAGES"):
        notebooks.read_notebook(notebooks.SOURCES / "own_data.py", {"TEPS": 3})


def test_an_error_in_a_cell_is_an_error(tmp_path):
    (tmp_path / "broken.py").write_text("# %%\n1 / 0\n")
    with pytest.raises(notebooks.CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(notebooks.read_notebook(tmp_path / "broken.py"))


def test_own_data():
    notebook = executed("own_data")
    check(notebook, expected_pictures=4)
    text = printed(notebook)
    assert "16 training images, 4 test images, classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n" in text
    steps, loss = numbers(r"(\d+) mini-batches in \d+ s, last loss ([\d.]+)", text)
    # An untrained classifier of two classes has a loss of log 2, to which the boxes' is added.
    assert steps == 20
    assert 0 < loss < 1
    objects, detections, mean_ap = numbers(r"mean AP +(\d+) +(\d+) +([\d.]+)  \(voc07, IoU 0.50\)", text)
    assert detections >= objects >= 4
    assert 0 < mean_ap <= 1
    assert len(re.findall(r"^test_\d+: [1-6] objects, \d+ detections$", text, flags=re.MULTILINE)) == 3


def test_roi_pooling():
    notebook = executed("roi_pooling")
    check(notebook, expected_pictures=4)
    text = printed(notebook)
    first, last = numbers(r"training loss ([\d.]+) -> ([\d.]+)", text)
    assert last < 0.5 * first
    # A guess is right in one of ten.
    in_training, in_test = numbers(r"training accuracy ([\d.]+), test accuracy ([\d.]+)", text)
    assert in_training > 0.5
    assert in_test > 0.25
    assert numbers(r"norm of conv1's gradient: ([\d.]+)", text)[0] > 0
    inside, outside = numbers(r"in the box and its margin: ([\d.e-]+), elsewhere: ([\d.e-]+)", text)
    assert inside > 0
    assert outside == 0


def test_serve_and_query(tiny_run):
    notebook = executed("serve_and_query", RUN=str(tiny_run[0]))
    check(notebook, expected_pictures=1)
    text = printed(notebook)
    assert "signatures: detect_image_bytes, predict_tensors, regions, serving_default\n" in text
    assert "version 1 AVAILABLE\n" in text
    by_rest = re.findall(r"^test_\d+\.jpg (\d+) detections$", text, flags=re.MULTILINE)
    total, difference = numbers(r"\n(\d+) detections, largest difference from REST ([\d.]+)", text)
    assert len(by_rest) == 4
    assert sum(map(int, by_rest)) == total
    assert difference < 1e-5
    assert "exit code 0\n" in text
    (port,) = re.findall(r"'grpc': '127\.0\.0\.1:(\d+)'", text)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5)
