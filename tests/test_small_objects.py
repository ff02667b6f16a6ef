"""The generated small objects that the documentation's figures are measured on."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tf_fast_rcnn as frcnn

SCRIPT = Path(__file__).parent.parent / "tools/small_objects.py"


def generate(folder, *options):
    command = [sys.executable, SCRIPT, folder, "--images", "2", "--val", "1", "--size", "800x600", *options]
    subprocess.run(command, check=True, capture_output=True)
    return frcnn.load_dataset(f"voc:{folder}@train")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("small") / "out")


def pixel_boxes(record):
    return np.asarray(record.boxes) * ([record.height, record.width] * 2)


def overlaps(boxes):
    corners = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]), np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = np.prod(np.maximum(corners[0] - corners[1], 0), axis=-1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    return (shared / (areas[:, None] + areas - shared))[~np.eye(len(boxes), dtype=bool)]


def test_sizes_classes_and_overlaps(small):
    assert small.class_names == ("cross", "disc", "ring", "triangle")
    for record in small:
        boxes = pixel_boxes(record)
        longer = np.max(boxes[:, 2:] - boxes[:, :2], axis=1)
        assert 22 <= len(boxes) <= 38
        assert longer.min() >= 7.5
        assert longer.max() <= 24.5
        assert overlaps(boxes).max() <= 0.1


def test_same_arguments_same_files(small, tmp_path):
    again = generate(tmp_path / "again")
    other = generate(tmp_path / "other", "--seed", "1")
    assert [record.encoded_image() for record in again] == [record.encoded_image() for record in small]
    assert other[0].encoded_image() != small[0].encoded_image()


def test_mixed_sizes(tmp_path):
    boxes = np.concatenate([pixel_boxes(record) for record in generate(tmp_path / "out", "--mixed", "--images", "4")])
    longer = np.max(boxes[:, 2:] - boxes[:, :2], axis=1)
    small, large = longer <= 40.5, longer >= 99.5
    assert (small | large).all()
    assert longer.min() >= 15.5
    assert 0.02 <= large.mean() <= 0.25


@pytest.mark.parametrize("name", ["cross", "disc", "ring", "triangle"])
@pytest.mark.parametrize("size", [8, 24, 150])
def test_boxes_fit_their_shapes(name, size):
    script = importlib.util.module_from_spec(specification := importlib.util.spec_from_file_location("script", SCRIPT))
    specification.loader.exec_module(script)
    for seed in range(20):
        opacity, box = script.shape_opacity(name, size, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero((opacity > 0.1).any(axis=axis)) for axis in (1, 0))
        visible = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        np.testing.assert_allclose(box, visible, atol=1.75)
        assert max(box[2:] - box[:2]) == pytest.approx(size, abs=0.5)
